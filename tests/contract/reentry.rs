//! Foreign code that uses every handle, from wherever a handle calls it: no foreign code runs under
//! a lock.
//!
//! Clock, observer, key, request, service, and wakers, which also do so when they are dropped. A
//! lock that is held meanwhile is a deadlock, so each case runs in a thread that must end.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    hash::{Hash, Hasher},
    pin::{Pin, pin},
    sync::{Arc, OnceLock, mpsc},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_rampart::{
    BoxError,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    clock::{Clock, Nanos},
    event::{Event, Observer},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    timeout::Timeout,
};

const MS: Duration = Duration::from_millis(1);

struct Handles {
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    limiter: RateLimiter,
    keyed: KeyedRateLimiter<Key>,
    retry: Retry,
    budget: RetryBudget,
    timeout: Timeout,
}

/// Uses every handle, unless it is being used by this already.
#[derive(Clone, Default)]
struct Reenter(Arc<OnceLock<Handles>>);

thread_local! {
    static CURRENT: Cell<Option<&'static Reenter>> = const { Cell::new(None) };
    static ENTERED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

impl Reenter {
    fn all(&self) {
        let Some(handles) = self.0.get() else { return };
        if ENTERED.replace(true) {
            return;
        }
        COUNT.set(COUNT.get() + 1);
        let Handles { breaker, bulkhead, limiter, keyed, retry, budget, timeout } = handles;
        drop((breaker.try_acquire(), breaker.snapshot(), breaker.state()));
        breaker.close();
        drop((bulkhead.try_acquire(), bulkhead.snapshot()));
        bulkhead.resize(bulkhead.snapshot().limit).unwrap();
        let _ = (limiter.check(), limiter.peek(1), limiter.snapshot());
        limiter.set_rate(Rate::per_second(100), 3).unwrap();
        let _ = (keyed.check_key(&Key("other")), keyed.peek_key(&Key("alice")), keyed.snapshot());
        retry.set_max_attempts(3).unwrap();
        let _ = (retry.snapshot(), budget.snapshot());
        if budget.try_withdraw() {
            budget.give_back();
        }
        timeout.set_limit(timeout.snapshot().limit);
        ENTERED.set(false);
    }

    fn current() {
        if let Some(reenter) = CURRENT.get() {
            reenter.all();
        }
    }
}

impl Clock for Reenter {
    fn now(&self) -> Nanos {
        self.all();
        Nanos::new(1 << 40)
    }
}

impl Observer for Reenter {
    fn on_event(&self, _: &Event<'_>) {
        self.all();
    }
}

#[derive(PartialEq, Eq)]
struct Key(&'static str);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Reenter::current();
        self.0.hash(state);
    }
}

/// A request, service and future in one.
struct Foreign(u32);

impl Foreign {
    fn boxed_error() -> BoxError {
        "down".into()
    }
}

impl Clone for Foreign {
    fn clone(&self) -> Self {
        Reenter::current();
        Self(self.0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        Reenter::current();
    }
}

impl Service<Foreign> for Foreign {
    type Response = ();
    type Error = BoxError;
    type Future = Self;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Reenter::current();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Foreign) -> Foreign {
        Reenter::current();
        Foreign(request.0)
    }
}

/// Pending, and then an error or not.
impl Future for Foreign {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Reenter::current();
        if self.0 & 1 == 0 {
            self.0 |= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(if self.0 & 2 == 0 { Ok(()) } else { Err(Self::boxed_error()) })
    }
}

/// A waker that re-enters when it is used and when it is dropped.
struct ForeignWaker(Waker);

impl Wake for ForeignWaker {
    fn wake(self: Arc<Self>) {
        Reenter::current();
        self.0.wake_by_ref();
    }
}

impl Drop for ForeignWaker {
    fn drop(&mut self) {
        Reenter::current();
    }
}

/// Polls `future` with another waker each time.
async fn with_wakers<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let waker = Arc::new(ForeignWaker(cx.waker().clone())).into();
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

fn handles(reenter: &Reenter) -> Handles {
    let budget = RetryBudget::builder().min_per_second(1).clock(reenter.clone()).build().unwrap();
    Handles {
        breaker: CircuitBreaker::builder("b")
            .consecutive_failures(100)
            .clock(reenter.clone())
            .observer(reenter.clone())
            .build()
            .unwrap(),
        bulkhead: Bulkhead::builder("k")
            .max_concurrent(1)
            .max_wait(100 * MS)
            .clock(reenter.clone())
            .observer(reenter.clone())
            .build()
            .unwrap(),
        limiter: RateLimiter::builder("l", Rate::per_second(100))
            .burst(3)
            .max_wait(100 * MS)
            .clock(reenter.clone())
            .observer(reenter.clone())
            .build()
            .unwrap(),
        keyed: KeyedRateLimiter::builder("u", Rate::per_second(100))
            .clock(reenter.clone())
            .observer(reenter.clone())
            .build()
            .unwrap(),
        retry: Retry::builder("r")
            .backoff(Backoff::fixed(MS).jitter(Jitter::None))
            .budget(&budget)
            .observer(reenter.clone())
            .build()
            .unwrap(),
        budget,
        timeout: Timeout::builder("t", 10 * MS).observer(reenter.clone()).build(),
    }
}

/// Runs `case` in a thread that must end.
fn ends<F: Future<Output = ()>>(name: &'static str, case: impl FnOnce(&'static Handles) -> F + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let reenter: &'static Reenter = Box::leak(Box::new(Reenter::default()));
        let handles = handles(reenter);
        let handles = reenter.0.get_or_init(|| handles);
        CURRENT.set(Some(reenter));
        super::support::paused(case(handles));
        CURRENT.set(None);
        sender.send(COUNT.get()).unwrap();
    });
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Ok(count) => assert!(count > 3, "{name}: re-entered {count} times"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: deadlock"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Calls that succeed and fail; rejections are fine.
async fn calls<L>(layer: L)
where
    L: Layer<Foreign, Service: Service<Foreign, Response = (), Error = BoxError>>,
{
    let mut service = layer.layer(Foreign(0));
    for outcome in [0, 2, 0] {
        let call = async {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(Foreign(outcome)).await
        };
        let _ = tokio::time::timeout(1000 * MS, with_wakers(call)).await;
    }
}

// G29, K34
#[test]
fn every_handle_may_be_used_from_foreign_code_in_every_layer() {
    ends("breaker", |handles| calls(handles.breaker.layer()));
    ends("breaker, backpressure", |handles| async {
        handles.breaker.open_for(5 * MS);
        calls(handles.breaker.layer().backpressure()).await;
    });
    ends("bulkhead", |handles| calls(handles.bulkhead.layer()));
    ends("bulkhead, backpressure", |handles| calls(handles.bulkhead.layer().backpressure()));
    ends("bulkhead, wait", |handles| async {
        let permit = handles.bulkhead.try_acquire().unwrap();
        let release = async {
            tokio::time::sleep(5 * MS).await;
            drop(permit);
        };
        tokio::join!(calls(handles.bulkhead.layer().wait()), calls(handles.bulkhead.layer().wait()), release);
    });
    ends("limiter", |handles| calls(handles.limiter.layer()));
    ends("limiter, wait", |handles| calls(handles.limiter.layer().wait()));
    ends("limiter, backpressure", |handles| calls(handles.limiter.layer().backpressure()));
    ends("limiter, steered", |handles| async {
        (1..6).for_each(|burst| handles.limiter.set_rate(Rate::per_second(10), burst).unwrap());
    });
    ends("keyed", |handles| calls(handles.keyed.layer(|_: &Foreign| Some(Key("alice")))));
    ends("retry", |handles| calls(handles.retry.layer()));
    ends("timeout", |handles| calls(handles.timeout.layer()));
}
