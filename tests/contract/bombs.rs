//! Foreign code that panics, at every point where a layer calls it (G29).
//!
//! Everything that a layer gets from its user ticks: observer, clock, classifier, closures, the
//! service and its clones, requests, responses, destructors. A call is made once for each tick,
//! which panics at that tick. Afterwards everything that the call held is released, its terminal
//! event was emitted, and the handle works.

use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_rampart::{
    BoxError, Verdict,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::{Clock, Nanos},
    event::{Event, Observer},
    fallback::Fallback,
    per_key::PerKey,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    stack,
    timeout::Timeout,
};

use super::support::recorder::Recorder;

const MS: Duration = Duration::from_millis(1);
const NEVER: usize = usize::MAX;

/// Counts ticks, and panics at one of them.
#[derive(Clone, Default)]
struct Bomb(Arc<Ticks>);

#[derive(Default)]
struct Ticks {
    count: AtomicUsize,
    panics_at: AtomicUsize,
    /// Observer and clock panic at every tick from `panics_at` on, and nothing else does.
    persistent: AtomicBool,
}

impl Bomb {
    fn new() -> Self {
        let bomb = Self::default();
        bomb.disarm();
        bomb
    }

    fn arm(&self, panics_at: usize, persistent: bool) {
        self.0.count.store(0, SeqCst);
        self.0.persistent.store(persistent, SeqCst);
        self.0.panics_at.store(panics_at, SeqCst);
    }

    fn disarm(&self) {
        self.0.panics_at.store(NEVER, SeqCst);
    }

    /// Foreign code runs. While a panic unwinds, a second one would abort the process if it left a
    /// destructor of its own.
    fn tick(&self) {
        if !std::thread::panicking() && !self.0.persistent.load(SeqCst) {
            let tick = self.0.count.fetch_add(1, SeqCst);
            if tick == self.0.panics_at.load(SeqCst) {
                resume_unwind(Box::new("deliberate panic"));
            }
        }
    }

    /// An observer or a clock runs.
    fn tick_hook(&self) {
        if !self.0.persistent.load(SeqCst) {
            return self.tick();
        }
        let tick = self.0.count.fetch_add(1, SeqCst);
        if tick >= self.0.panics_at.load(SeqCst) {
            resume_unwind(Box::new("deliberate panic"));
        }
    }

    fn ticks(&self) -> usize {
        self.0.count.load(SeqCst)
    }

    fn clock(&self) -> TickingClock {
        TickingClock(self.clone(), now())
    }
}

#[allow(clippy::disallowed_methods)] // the tests' own reading of the paused clock
fn now() -> Instant {
    Instant::now()
}

struct TickingObserver(Bomb);

impl Observer for TickingObserver {
    fn on_event(&self, _: &Event<'_>) {
        self.0.tick_hook();
    }
}

/// Follows tokio's clock.
struct TickingClock(Bomb, Instant);

impl Clock for TickingClock {
    fn now(&self) -> Nanos {
        self.0.tick_hook();
        Nanos::new((1 << 40) + u64::try_from((now() - self.1).as_nanos()).unwrap())
    }
}

struct Request(Bomb);

impl Clone for Request {
    fn clone(&self) -> Self {
        self.0.tick();
        Self(self.0.clone())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.tick();
    }
}

#[derive(Debug)]
struct Failure;

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("boom")
    }
}

impl std::error::Error for Failure {}

struct Response(Bomb);

impl Drop for Response {
    fn drop(&mut self) {
        self.0.tick();
    }
}

impl Clone for Response {
    fn clone(&self) -> Self {
        self.0.tick();
        Self(self.0.clone())
    }
}

impl Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Response")
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Succeeds,
    Fails,
    Hangs,
}

/// A service whose calls are pending once and then end.
struct Ticking {
    bomb: Bomb,
    outcome: Outcome,
    calls: Arc<AtomicUsize>,
}

impl Clone for Ticking {
    fn clone(&self) -> Self {
        self.bomb.tick();
        Self { bomb: self.bomb.clone(), outcome: self.outcome, calls: self.calls.clone() }
    }
}

impl Service<Request> for Ticking {
    type Response = Response;
    type Error = BoxError;
    type Future = TickingFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.bomb.tick();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> TickingFuture {
        self.calls.fetch_add(1, SeqCst);
        self.bomb.tick();
        TickingFuture { bomb: self.bomb.clone(), outcome: self.outcome, polled: false }
    }
}

struct TickingFuture {
    bomb: Bomb,
    outcome: Outcome,
    polled: bool,
}

impl Future for TickingFuture {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.bomb.tick();
        if !std::mem::replace(&mut self.polled, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.outcome {
            Outcome::Succeeds => Poll::Ready(Ok(Response(self.bomb.clone()))),
            Outcome::Fails => Poll::Ready(Err(Failure.into())),
            Outcome::Hangs => Poll::Pending,
        }
    }
}

impl Drop for TickingFuture {
    fn drop(&mut self) {
        self.bomb.tick();
    }
}

/// A key whose hash ticks.
#[derive(PartialEq, Eq)]
struct Key(&'static str);

thread_local! {
    static KEYS: std::cell::RefCell<Option<Bomb>> = const { std::cell::RefCell::new(None) };
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bomb = KEYS.with_borrow(Clone::clone);
        if let Some(bomb) = bomb {
            bomb.tick();
        }
        self.0.hash(state);
    }
}

/// A layer, and what to do about its handle.
struct Rigged<L> {
    layer: L,
    /// Relieves a saturated handle while the call waits.
    relief: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Whether foreign code runs before the call reaches a handle.
    reaches_handle_late: bool,
    /// Asserts that the handle holds nothing, given how often the service was called.
    released: Box<dyn Fn(usize)>,
}

impl<L> Rigged<L> {
    fn new(layer: L, released: impl Fn(usize) + 'static) -> Self {
        Self { layer, relief: None, reaches_handle_late: false, released: Box::new(released) }
    }
}

/// Makes a call that panics at each tick in turn.
async fn panics_everywhere<L>(name: &str, rig: impl Fn(&Bomb, (TickingObserver, Recorder)) -> Rigged<L>)
where
    L: Layer<Ticking>,
    L::Service: Service<Request, Response = Response, Error = BoxError>,
{
    let mut points = 0;
    for persistent in [false, true] {
        for outcome in [Outcome::Succeeds, Outcome::Fails, Outcome::Hangs] {
            for panics_at in 0.. {
                assert!(panics_at < 500, "{name} never ends");
                let place = format!("{name} {outcome:?} at {panics_at}, persistent: {persistent}");
                let (ticks, panicked) = panics_once(&place, &rig, outcome, panics_at, persistent).await;
                if ticks <= panics_at {
                    break;
                }
                points += usize::from(panicked);
            }
        }
    }
    assert!(points > 10, "{name}: only {points} panics");
}

async fn panics_once<L>(
    place: &str,
    rig: impl Fn(&Bomb, (TickingObserver, Recorder)) -> Rigged<L>,
    outcome: Outcome,
    panics_at: usize,
    persistent: bool,
) -> (usize, bool)
where
    L: Layer<Ticking>,
    L::Service: Service<Request, Response = Response, Error = BoxError>,
{
    let (bomb, recorder, calls) = (Bomb::new(), Recorder::new(), Arc::new(AtomicUsize::new(0)));
    KEYS.set(Some(bomb.clone()));
    let Rigged { layer, relief, reaches_handle_late, released } =
        rig(&bomb, (TickingObserver(bomb.clone()), recorder.clone()));
    let ticking = |outcome| Ticking { bomb: bomb.clone(), outcome, calls: calls.clone() };
    let (mut service, mut next) = (layer.layer(ticking(outcome)), layer.layer(ticking(Outcome::Succeeds)));
    let saturated = relief.is_some();
    recorder.take();
    bomb.arm(panics_at, persistent);
    // The call is kept when it panics, and dropped later, as by a layer that catches panics.
    let (mut call, mut reached) = (None, false);
    let result = AssertUnwindSafe(async {
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        reached = true;
        let call = call.insert(Box::pin(service.call(Request(bomb.clone()))));
        let relief = async {
            if let Some(relief) = relief {
                relief.await;
            }
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(1000 * MS, async {
            tokio::select! {
                result = call.as_mut() => drop(result),
                () = relief => {}
            }
        })
        .await;
    })
    .catch_unwind()
    .await;
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(call)));
    let unready = catch_unwind(AssertUnwindSafe(|| drop(service)));
    bomb.disarm();
    let (ticks, panicked) = (bomb.ticks(), result.is_err() || dropped.is_err() || unready.is_err());
    released(calls.load(SeqCst));

    let events = recorder.take();
    let count = |prefix: &str| events.iter().filter(|line| line.starts_with(prefix)).count();
    // Of the rejections, only a timeout's ends an admitted call.
    let unadmitted = count("cancelled waiting") + count("rejected") - count("rejected timed_out");
    // The permit that saturated the handle ends, too.
    let terminal = count("completed") + count("cancelled") + count("rejected") - usize::from(saturated);
    assert_eq!(count("admitted") + unadmitted, terminal, "{place}: {events:?}");
    assert!(!reached || reaches_handle_late || terminal > 0, "{place}: {events:?}");

    // The handle works, once an open circuit would be tried again.
    tokio::time::advance(60_000 * MS).await;
    poll_fn(|cx| next.poll_ready(cx)).await.unwrap();
    next.call(Request(bomb.clone())).await.unwrap_or_else(|error| panic!("{place}: {error}"));
    KEYS.set(None);
    (ticks, panicked)
}

fn by_result(bomb: &Bomb) -> impl Fn(Result<&Response, &BoxError>) -> Verdict + Clone + use<> {
    let bomb = Cloned(bomb.clone());
    move |result| {
        bomb.0.tick();
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// A bomb whose clone ticks.
struct Cloned(Bomb);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.0.tick();
        Self(self.0.clone())
    }
}

fn breaker(bomb: &Bomb, observer: impl Observer) -> CircuitBreaker {
    CircuitBreaker::builder("b")
        .consecutive_failures(3)
        .slow_calls(100 * MS, 0.9)
        .clock(bomb.clock())
        .observer(observer)
        .build()
        .unwrap()
}

fn no_probes(breaker: &CircuitBreaker) -> impl Fn(usize) + use<> {
    let breaker = breaker.clone();
    move |_| assert_eq!(breaker.snapshot().probes_in_flight, 0)
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_circuit_breaker() {
    panics_everywhere("closed", |bomb, observer| {
        let breaker = breaker(bomb, observer);
        Rigged::new(breaker.layer().classify(by_result(bomb)), no_probes(&breaker))
    })
    .await;
    panics_everywhere("half-open", |bomb, observer| {
        let breaker = breaker(bomb, observer);
        breaker.half_open();
        Rigged::new(breaker.layer().classify(by_result(bomb)), no_probes(&breaker))
    })
    .await;
    panics_everywhere("half-open, backpressure", |bomb, observer| {
        let breaker = breaker(bomb, observer);
        breaker.half_open();
        Rigged::new(breaker.layer().classify(by_result(bomb)).backpressure(), no_probes(&breaker))
    })
    .await;
    panics_everywhere("open until the call", |bomb, observer| {
        let breaker = breaker(bomb, observer);
        breaker.open_for(Duration::ZERO);
        assert_eq!(breaker.state(), CircuitState::Open);
        Rigged::new(breaker.layer().classify(by_result(bomb)).backpressure(), no_probes(&breaker))
    })
    .await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_bulkhead() {
    fn rigged<L>(bomb: &Bomb, observer: impl Observer, full: bool, layer: impl Fn(&Bulkhead) -> L) -> Rigged<L> {
        let bulkhead = Bulkhead::builder("k")
            .max_concurrent(1)
            .max_wait(50 * MS)
            .clock(bomb.clock())
            .observer(observer)
            .build()
            .unwrap();
        let layer = layer(&bulkhead);
        let relief = full.then(|| {
            let permit = bulkhead.try_acquire_owned().unwrap();
            Box::pin(async move {
                tokio::time::sleep(10 * MS).await;
                // Not during the panic of the call.
                drop(permit);
            }) as Pin<Box<dyn Future<Output = ()>>>
        });
        let released = move |_| {
            let snapshot = bulkhead.snapshot();
            assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
        };
        Rigged { relief, ..Rigged::new(layer, released) }
    }
    panics_everywhere("free", |bomb, observer| rigged(bomb, observer, false, |k| k.layer())).await;
    panics_everywhere("backpressure", |bomb, observer| rigged(bomb, observer, false, |k| k.layer().backpressure()))
        .await;
    panics_everywhere("wait", |bomb, observer| rigged(bomb, observer, true, |k| k.layer().wait())).await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_rate_limiter() {
    let limiter = |bomb: &Bomb, observer, used: u32| {
        let limiter = RateLimiter::builder("l", Rate::per_second(100))
            .burst(2)
            .max_wait(50 * MS)
            .clock(bomb.clock())
            .observer(observer)
            .build()
            .unwrap();
        (0..used).for_each(|_| limiter.check().unwrap());
        limiter
    };
    let cost = |bomb: &Bomb| {
        let bomb = bomb.clone();
        move |_: &Request| {
            bomb.tick();
            1
        }
    };
    panics_everywhere("reject", |bomb, observer| {
        Rigged::new(limiter(bomb, observer, 0).layer().cost(cost(bomb)), |_| ())
    })
    .await;
    panics_everywhere("wait", |bomb, observer| {
        Rigged::new(limiter(bomb, observer, 2).layer().cost(cost(bomb)).wait(), |_| ())
    })
    .await;
    panics_everywhere("backpressure", |bomb, observer| {
        Rigged::new(limiter(bomb, observer, 2).layer().backpressure(), |_| ())
    })
    .await;
    panics_everywhere("keyed", |bomb, observer| {
        let limiter: KeyedRateLimiter<Key> = KeyedRateLimiter::builder("u", Rate::per_second(100))
            .clock(bomb.clock())
            .observer(observer)
            .build()
            .unwrap();
        let bomb = bomb.clone();
        let key = move |_: &Request| {
            bomb.tick();
            Some(Key("alice"))
        };
        Rigged::new(limiter.layer(key), |_| ())
    })
    .await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_timeout() {
    panics_everywhere("timeout", |bomb, observer| {
        let bomb = bomb.clone();
        let limit = move |_: &Request| {
            bomb.tick();
            Some(20 * MS)
        };
        Rigged::new(Timeout::builder("t", MS).observer(observer).build().layer().per_request(limit), |_| ())
    })
    .await;
}

fn retry(budget: &RetryBudget, observer: impl Observer) -> Retry {
    Retry::builder("r")
        .max_attempts(3)
        .idempotent(true)
        .backoff(Backoff::fixed(5 * MS).jitter(Jitter::None))
        .budget(budget)
        .observer(observer)
        .build()
        .unwrap()
}

fn budget(bomb: &Bomb) -> RetryBudget {
    RetryBudget::builder().ratio(0.0).capacity(9).min_per_second(1).clock(bomb.clock()).build().unwrap()
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_retry() {
    panics_everywhere("retry", |bomb, observer| {
        let budget = budget(bomb);
        let (copies, idempotent, prepared) = (bomb.clone(), bomb.clone(), bomb.clone());
        let layer = retry(&budget, observer)
            .layer()
            .classify(by_result(bomb))
            .clone_with(move |request: &Request| {
                copies.tick();
                Some(request.clone())
            })
            .idempotent_if(move |_: &Request| {
                idempotent.tick();
                true
            })
            .prepare_with(move |_, _: &mut Request| prepared.tick());
        Rigged::new(layer, move |calls| {
            // Only the retries that were sent are paid for; a second refills one token.
            let spent = 9.0 - budget.snapshot().balance;
            let retries = calls.saturating_sub(1) as f64;
            assert!(spent <= retries && retries - spent <= 1.1, "{spent} tokens for {retries} retries");
        })
    })
    .await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_fallback() {
    let any = |bomb: &Bomb| {
        let bomb = bomb.clone();
        move |result: Result<&Response, &BoxError>| {
            bomb.tick();
            result.is_err()
        }
    };
    panics_everywhere("value", |bomb, observer| {
        Rigged::new(Fallback::value("f", Response(bomb.clone())).when(any(bomb)).observer(observer), |_| ())
    })
    .await;
    panics_everywhere("function", |bomb, observer| {
        let bomb = Cloned(bomb.clone());
        let any = any(&bomb.0);
        let function = move |_: Request, _: Result<Response, BoxError>| {
            bomb.0.tick();
            TickingFuture { bomb: bomb.0.clone(), outcome: Outcome::Succeeds, polled: false }
        };
        Rigged::new(Fallback::function("f", function).when(any).observer(observer), |_| ())
    })
    .await;
    panics_everywhere("service", |bomb, observer| {
        let other = Ticking { bomb: bomb.clone(), outcome: Outcome::Succeeds, calls: Arc::default() };
        Rigged::new(Fallback::service("f", other).when(any(bomb)).observer(observer), |_| ())
    })
    .await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_a_breaker_per_key() {
    panics_everywhere("per key", |bomb, observer| {
        let observer = Arc::new(observer);
        let clocks = bomb.clone();
        let breakers = PerKey::builder("p", move |name| {
            CircuitBreaker::builder(name).clock(clocks.clock()).observer(observer.clone()).build()
        });
        let breakers: PerKey<&'static str, CircuitBreaker> = breakers.build().unwrap();
        let (keys, classify) = (bomb.clone(), by_result(bomb));
        let key = move |_: &Request| {
            keys.tick();
            Some("host-1")
        };
        let layer = move |breaker: &CircuitBreaker| breaker.layer().classify(classify.clone());
        Rigged { reaches_handle_late: true, ..Rigged::new(breakers.layer(key, layer), |_| ()) }
    })
    .await;
}

// G29
#[tokio::test(start_paused = true)]
async fn around_the_ready_made_stacks() {
    panics_everywhere("client", |bomb, observer| {
        let observer = Arc::new(observer);
        let budget = budget(bomb);
        let breaker = breaker(bomb, observer.clone());
        breaker.half_open();
        let bulkhead = Bulkhead::builder("k").max_concurrent(1).observer(observer.clone()).build().unwrap();
        let layer = stack::client("c")
            .classify(by_result(bomb))
            .retry(&retry(&budget, observer.clone()))
            .circuit_breaker(&breaker)
            .bulkhead(&bulkhead)
            .attempt_timeout(200 * MS)
            .total_timeout(500 * MS)
            .observer(observer)
            .build()
            .unwrap();
        Rigged::new(layer, move |_| {
            assert_eq!((breaker.snapshot().probes_in_flight, bulkhead.snapshot().in_flight), (0, 0));
        })
    })
    .await;
}
