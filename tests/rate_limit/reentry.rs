//! Clocks, wakers, observers, keys and costs that use the limiter again, or panic.

use std::{
    cell::Cell,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_rampart::{
    Rejection,
    clock::{Clock, ManualClock, Nanos},
    event::{Event, Observer},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
};

use crate::support::{BoxError, probe::Script};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Uses both limiters in every way, unless it is called from there.
#[derive(Clone, Default)]
struct Reenter(Arc<OnceLock<(RateLimiter, KeyedRateLimiter<u32>)>>);

impl Reenter {
    fn use_everything(&self) {
        let Some((limiter, keyed)) = self.0.get() else { return };
        if INSIDE.replace(true) {
            return;
        }
        let _ = (limiter.check(), limiter.peek(1), limiter.snapshot(), limiter.set_rate(Rate::per_second(1), 1));
        if let Ok(token) = limiter.try_acquire(1) {
            token.refund();
        }
        let _ = limiter.acquire(1).now_or_never();
        let _ = (keyed.check_key(&7), keyed.peek_key(&7), keyed.snapshot(), format!("{limiter:?}{keyed:?}"));
        INSIDE.set(false);
    }
}

impl Clock for Reenter {
    fn now(&self) -> Nanos {
        self.use_everything();
        Nanos::new(1 << 50)
    }
}

impl Observer for Reenter {
    fn on_event(&self, _: &Event<'_>) {
        self.use_everything();
    }
}

impl Wake for Reenter {
    fn wake(self: Arc<Self>) {
        self.use_everything();
    }
}

// G24, L9
#[tokio::test(start_paused = true)]
async fn callbacks_may_use_every_handle_again() {
    let reenter = Reenter::default();
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).burst(1).max_wait(10 * SECOND);
    let limiter = limiter.clock(reenter.clone()).observer(reenter.clone()).build().unwrap();
    let keyed = KeyedRateLimiter::<u32>::builder("u", Rate::per_second(1)).clock(reenter.clone());
    let keyed = keyed.observer(reenter.clone()).build().unwrap();
    assert!(reenter.0.set((limiter.clone(), keyed.clone())).is_ok());
    let waker = Waker::from(Arc::new(reenter.clone()));
    let mut cx = Context::from_waker(&waker);
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(limiter.acquire(1))).collect();
    for call in &mut waiting {
        let _ = call.as_mut().poll(&mut cx);
    }
    limiter.set_rate(Rate::per_second(2), 3).unwrap();
    let _ = (keyed.check_key(&7), limiter.try_acquire(1).map(|token| token.refund()), limiter.snapshot());
    for _ in 0..10 {
        advance(SECOND).await;
        waiting.retain_mut(|call| call.as_mut().poll(&mut cx).is_pending());
        waiting.pop();
    }
}

type Acquire = Pin<Box<dyn Future<Output = Result<(), Rejection>> + Send>>;

/// A waker that owns a call of the same limiter.
struct Owner(Mutex<Option<Acquire>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        // Polls its call, as an executor may do at once.
        if let Some(call) = &mut *self.0.lock().unwrap() {
            let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

// G24
#[tokio::test(start_paused = true)]
async fn a_waker_may_own_another_call_of_the_queue() {
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).burst(1).max_wait(10 * SECOND).build().unwrap();
    limiter.check().unwrap();
    let acquire = || {
        let limiter = limiter.clone();
        let mut call = Box::pin(async move { limiter.acquire(1).await });
        assert!(call.as_mut().now_or_never().is_none());
        call
    };
    let mut first = acquire();
    let waker = Waker::from(Arc::new(Owner(Mutex::new(Some(acquire())))));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    limiter.set_rate(Rate::per_second(2), 1).unwrap();
    // Replaced, and so dropped with its call, while the queue is used.
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(waker);
    assert_eq!(limiter.snapshot().full_after, SECOND, "the call that the waker owned has left");
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("deliberate panic");
    }
}

// G24
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_costs_no_token() {
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).burst(1).max_wait(10 * SECOND).build().unwrap();
    limiter.check().unwrap();
    let mut first = task::spawn(limiter.acquire(1));
    assert_pending!(first.poll());
    let mut second = Box::pin(limiter.acquire(1));
    let waker = Waker::from(Arc::new(Panics));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    advance(SECOND + MS).await;
    // The first takes its token and calls the second.
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll())).is_err());
    assert_eq!(limiter.snapshot().full_after, SECOND, "only the second call's");
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// A key whose hash uses the limiter again, and which panics when told to.
#[derive(Clone, Copy)]
struct Key {
    reenter: &'static OnceLock<KeyedRateLimiter<Key>>,
    panics: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        7.hash(state);
        if !INSIDE.replace(true) {
            let keyed = self.reenter.get().unwrap();
            let _ = (keyed.check_key(self), keyed.snapshot());
            INSIDE.set(false);
            assert!(!self.panics, "deliberate panic");
        }
    }
}

/// Panics when it is dropped.
struct Owned(Key);

impl std::borrow::Borrow<Key> for Owned {
    fn borrow(&self) -> &Key {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "deliberate panic");
    }
}

// G24, L24
#[tokio::test]
async fn a_key_that_panics_takes_no_token() {
    static LIMITER: OnceLock<KeyedRateLimiter<Key>> = OnceLock::new();
    let clock = ManualClock::new();
    let keyed = KeyedRateLimiter::<Key>::builder("u", Rate::per_hour(10)).burst(2).clock(clock).build().unwrap();
    assert!(LIMITER.set(keyed.clone()).is_ok());
    let key = Key { reenter: &LIMITER, panics: false };
    // The key's own use takes the other token.
    assert!(keyed.check_key(&key).is_ok());
    assert!(keyed.check_key(&key).is_err());
    INSIDE.set(true);
    let other = KeyedRateLimiter::<Key>::builder("u", Rate::per_hour(10)).burst(1).build().unwrap();
    let mut service =
        other.layer(|key: &Key| Some(Owned(*key))).layer(tower::service_fn(|_: Key| async { Ok::<_, BoxError>(()) }));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(service.call(key)))).is_err(), "the key's destructor panics");
    assert!(other.check_key(&key).is_ok(), "before the token is taken");
    INSIDE.set(false);
    assert!(catch_unwind(AssertUnwindSafe(|| other.check_key(&Key { panics: true, ..key }))).is_err());
}

// G24, L19
#[tokio::test(start_paused = true)]
async fn a_cost_that_panics_takes_no_token() {
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).max_wait(SECOND).build().unwrap();
    let layer = limiter.layer().cost(|_: &&str| panic!("deliberate panic")).wait();
    let (_, probe) = Script::new();
    let mut service = task::spawn(layer.layer(probe));
    assert!(assert_ready!(crate::support::poll_ready(&mut service)).is_ok());
    let call = AssertUnwindSafe(|| service.enter(|_, mut service| drop(service.call("a"))));
    assert!(catch_unwind(call).is_err());
    assert_eq!(limiter.snapshot().available, 1);
}
