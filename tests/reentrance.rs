//! Foreign code that uses every handle from wherever it is called: wakers, observers, clocks, keys
//! and users' handles. If it were called under a lock, it would never return.

mod support;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake},
    time::Duration,
};

use futures_util::{FutureExt, future::FusedFuture};
use support::{BoxError, probe::Script};
use tower::{Layer, Service, service_fn};
use tower_rampart::{
    Event, Observer,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    clock::{Clock, ManualClock, Nanos},
    per_key::{Evict, EvictionLoss, PerKey},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
};

const SECOND: Duration = Duration::from_secs(1);

/// All handles, each with foreign code that uses all handles.
struct Handles {
    bulkhead: Bulkhead,
    breaker: CircuitBreaker,
    limiter: RateLimiter,
    keyed: KeyedRateLimiter<str>,
    per_key: PerKey<Key, Handle>,
    clock: ManualClock,
}

thread_local! {
    static HANDLES: RefCell<Option<Rc<Handles>>> = const { RefCell::new(None) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Whether foreign code looks at all handles of the map, which keeps these from being evicted.
    static INSPECTS: Cell<bool> = const { Cell::new(true) };
    /// The foreign code that was called.
    static CALLED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Uses every handle, unless foreign code already does.
fn reenter(from: &'static str) {
    if INSIDE.replace(true) {
        return;
    }
    CALLED.with_borrow_mut(|called| called.insert(from));
    let handles = HANDLES.with_borrow(Clone::clone);
    if let Some(handles) = handles {
        handles.use_all();
    }
    INSIDE.set(false);
}

impl Handles {
    fn new() -> Self {
        let clock = ManualClock::new();
        clock.advance(SECOND);
        let [a, b, c, d, e] = [(); 5].map(|()| ReenteringClock(clock.clone()));
        let bulkhead = Bulkhead::builder("k").max_concurrent(1).max_wait(SECOND * 60).max_queue(100);
        let limiter = RateLimiter::builder("l", Rate::per_second(1)).max_wait(SECOND * 60);
        let per_key = PerKey::builder("p", |name| {
            reenter("make");
            Bulkhead::new(name, 1).map(Handle)
        });
        Self {
            bulkhead: bulkhead.observer(ReenteringObserver).clock(a).build().unwrap(),
            breaker: CircuitBreaker::builder("b").probes(1).observer(ReenteringObserver).clock(b).build().unwrap(),
            limiter: limiter.observer(ReenteringObserver).clock(c).build().unwrap(),
            keyed: KeyedRateLimiter::builder("u", Rate::per_second(1))
                .observer(ReenteringObserver)
                .clock(d)
                .build()
                .unwrap(),
            per_key: per_key.clock(e).idle_after(SECOND).forget_after(SECOND).max_keys(50).build().unwrap(),
            clock,
        }
    }

    /// Every operation that takes a lock or runs foreign code, and some that do neither.
    fn use_all(&self) {
        drop(self.bulkhead.try_acquire());
        drop(polled(Box::pin(async { drop(self.bulkhead.acquire().await) }.fuse())));
        drop(polled(self.ready_of_bulkhead()));
        self.bulkhead.resize(self.bulkhead.snapshot().limit).unwrap();
        drop(self.breaker.try_acquire());
        drop(polled(self.ready_of_breaker()));
        drop(polled(Box::pin(
            async {
                let _ = self.breaker.run(async { Err::<(), BoxError>("boom".into()) }).await;
            }
            .fuse(),
        )));
        let _ = (self.limiter.check(), self.limiter.peek(1), self.limiter.snapshot());
        drop(self.limiter.try_acquire(1).map(|token| token.refund()));
        drop(polled(Box::pin(async { drop(self.limiter.acquire(1).await) }.fuse())));
        let _ = self.keyed.check_key("alice");
        drop(self.per_key.get_or_create(&Key(1)));
        if INSPECTS.get() {
            drop(self.per_key.get(&Key(2)));
            drop(self.per_key.entries());
        }
        let _ = format!("{:?} {:?} {:?} {:?}", self.bulkhead, self.breaker, self.limiter, self.per_key);
    }

    fn ready_of_bulkhead<'a>(&self) -> Waiting<'a> {
        let mut service = self.bulkhead.layer().backpressure().layer(Script::new().1);
        Box::pin(std::future::poll_fn(move |cx| service.poll_ready(cx).map(drop)).fuse())
    }

    fn ready_of_breaker<'a>(&self) -> Waiting<'a> {
        let mut service = self.breaker.layer().backpressure().layer(service_fn(async |()| Ok::<_, BoxError>(())));
        Box::pin(std::future::poll_fn(move |cx| service.poll_ready(cx).map(drop)).fuse())
    }
}

type Waiting<'a> = Pin<Box<dyn FusedFuture<Output = ()> + 'a>>;

/// Polls with a waker of its own, which is dropped unless it is registered.
fn poll(waiting: &mut Waiting<'_>) -> Poll<()> {
    waiting.as_mut().poll(&mut Context::from_waker(&Arc::new(ReenteringWaker).into()))
}

fn poll_every(nth: usize, waiting: &mut [Waiting<'_>]) {
    for waiting in waiting.iter_mut().step_by(nth).filter(|waiting| !waiting.is_terminated()) {
        let _ = poll(waiting);
    }
}

fn polled(mut waiting: Waiting<'_>) -> Waiting<'_> {
    let _ = poll(&mut waiting);
    waiting
}

struct ReenteringWaker;

impl Wake for ReenteringWaker {
    fn wake(self: Arc<Self>) {
        reenter("waker: wake");
    }
}

impl Drop for ReenteringWaker {
    fn drop(&mut self) {
        reenter("waker: drop");
    }
}

struct ReenteringObserver;

impl Observer for ReenteringObserver {
    fn on_event(&self, _: &Event<'_>) {
        reenter("observer");
    }
}

struct ReenteringClock(ManualClock);

impl Clock for ReenteringClock {
    fn now(&self) -> Nanos {
        reenter("clock");
        self.0.now()
    }
}

/// All keys have the same hash.
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        reenter("key: hash");
        0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        reenter("key: eq");
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        reenter("key: clone");
        Self(self.0)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        reenter("key: drop");
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        reenter("key: display");
        self.0.fmt(f)
    }
}

struct Handle(Bulkhead);

impl Clone for Handle {
    fn clone(&self) -> Self {
        reenter("handle: clone");
        Self(self.0.clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        reenter("handle: drop");
    }
}

impl Evict for Handle {
    fn eviction_loss(&self, overflow: &Self) -> EvictionLoss {
        reenter("handle: eviction_loss");
        // A changed limit is the history of this handle, so that the map reports its eviction.
        self.0.eviction_loss(&overflow.0).min(EvictionLoss::History)
    }

    fn report_eviction(&self) {
        reenter("handle: report_eviction");
        self.0.report_eviction();
    }
}

/// Runs `work` on a thread of its own, and panics if it does not end.
fn without_deadlock(work: impl FnOnce(&Handles) + Send + 'static) -> BTreeSet<&'static str> {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let handles = Rc::new(Handles::new());
        HANDLES.set(Some(Rc::clone(&handles)));
        let result = catch_unwind(AssertUnwindSafe(|| work(&handles)));
        drop(HANDLES.take());
        drop(handles);
        done.send(result.map(|()| CALLED.take())).unwrap();
    });
    match ended.recv_timeout(SECOND * 20) {
        Ok(Ok(called)) => called,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("foreign code was called under a lock"),
    }
}

/// Ten waiters, of which some are polled by other tasks and some leave.
fn waiters<'a>(wait: impl Fn() -> Waiting<'a>) -> Vec<Waiting<'a>> {
    let mut waiting: Vec<_> = (0..10).map(|_| polled(wait())).collect();
    poll_every(2, &mut waiting);
    drop(waiting.remove(3));
    drop(waiting.pop());
    waiting
}

// K34
#[test]
fn the_waiters_of_a_bulkhead_may_use_every_handle() {
    let called = without_deadlock(|handles| {
        let bulkhead = handles.bulkhead.clone();
        for release_by_resize in [false, true] {
            let permit = bulkhead.try_acquire().unwrap();
            let mut waiting = waiters(|| handles.ready_of_bulkhead());
            waiting.extend(waiters(|| Box::pin(async { drop(bulkhead.acquire().await) }.fuse())));
            if release_by_resize {
                bulkhead.resize(100).unwrap();
            } else {
                drop(permit);
            }
            // Grants lapse, and waiters rejoin.
            for _ in 0..5 {
                handles.clock.advance(SECOND);
                poll_every(3, &mut waiting);
            }
            drop(waiting);
            bulkhead.resize(1).unwrap();
        }
        assert_eq!((bulkhead.snapshot().in_flight, bulkhead.snapshot().waiting), (0, 0));
    });
    assert!(["clock", "observer", "waker: drop", "waker: wake"].iter().all(|from| called.contains(from)), "{called:?}");
}

// K34
#[test]
fn the_waiters_of_a_breaker_may_use_every_handle() {
    let called = without_deadlock(|handles| {
        let breaker = handles.breaker.clone();
        let mut waiting = Vec::new();
        breaker.force_open();
        for set in [CircuitBreaker::half_open, CircuitBreaker::close, CircuitBreaker::disable] {
            breaker.force_open();
            waiting.extend(waiters(|| handles.ready_of_breaker()));
            set(&breaker);
            for _ in 0..3 {
                handles.clock.advance(SECOND);
                poll_every(3, &mut waiting);
            }
        }
        breaker.open_for(SECOND);
        drop(waiting);
        breaker.half_open();
        assert_eq!(breaker.snapshot().probes_in_flight, 0);
    });
    assert!(["clock", "observer", "waker: drop", "waker: wake"].iter().all(|from| called.contains(from)), "{called:?}");
}

// K34
#[test]
fn keys_and_handles_of_a_map_may_use_every_handle() {
    let called = without_deadlock(|handles| {
        let map = handles.per_key.clone();
        for round in 0..4 {
            for key in 0..20 {
                drop(map.get_or_create(&Key(round * 10 + key)));
            }
            assert!(map.get(&Key(round * 10)).is_some());
            assert!(map.entries().len() <= 50);
            handles.clock.advance(SECOND * 2);
        }
        assert_eq!(map.len(), 50, "foreign code had every handle passed out during each sweep");
        INSPECTS.set(false);
        drop(map.get_or_create(&Key(100)));
        assert!(map.len() < 50, "idle handles are evicted: {}", map.len());
        CALLED.with_borrow(|called| assert!(!called.contains("handle: report_eviction")));
        // A full map of handles with a history.
        for key in 200..250 {
            drop(map.get_or_create(&Key(key)));
        }
        assert_eq!(map.len(), 50);
        for (_key, handle) in map.entries() {
            handle.0.resize(2).unwrap();
        }
        handles.clock.advance(SECOND * 2);
        drop(map.get_or_create(&Key(300)));
        assert!(map.len() < 50, "history is forgotten: {}", map.len());
    });
    let callbacks = ["clock", "handle: clone", "handle: drop", "handle: eviction_loss", "handle: report_eviction"];
    assert!(callbacks.iter().all(|from| called.contains(from)), "{called:?}");
    let callbacks = ["key: clone", "key: display", "key: drop", "key: eq", "key: hash", "make"];
    assert!(callbacks.iter().all(|from| called.contains(from)), "{called:?}");
}

// K34
#[test]
fn observers_and_clocks_may_use_every_handle() {
    let called = without_deadlock(|handles| {
        for _ in 0..3 {
            INSIDE.set(false);
            handles.use_all();
            handles.clock.advance(SECOND / 2);
        }
    });
    assert!(["clock", "observer"].iter().all(|from| called.contains(from)), "{called:?}");
}
