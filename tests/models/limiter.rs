//! A bucket that is never given anything back, as the strict side, and the rate itself as the loose side.
//!
//! A limiter that takes tokens back may be more generous than such a bucket, never less; and of the tokens that were
//! used, no interval holds more than its due. As long as nothing has come back the two are the same, to the nanosecond.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio_test::task::{self, Spawn};
use tower_rampart::{
    Rejection,
    event::{Event, EventKind},
    rate_limit::{Rate, RateLimiter, Token},
};

use super::{paused, support::recorder::Recorder};

const MS: u64 = 1_000_000;
const PATIENCE: u64 = 60 * MS;
/// Each a multiple of the one before by a power of two, so that the debt divides without a rest.
const PERIODS: [u64; 4] = [10 * MS, 20 * MS, 40 * MS, 80 * MS];

#[derive(Clone, Debug)]
enum Op {
    Check(u32),
    Take(u32),
    Acquire(u32),
    Refund(usize),
    Keep(usize),
    GiveUp(usize),
    SetRate(usize, u32),
    Advance(u64),
    RunWaiters,
}

fn op() -> impl Strategy<Value = Op> {
    let cost = || prop_oneof![4 => Just(1_u32), 1 => 1_u32..7];
    prop_oneof![
        3 => cost().prop_map(Op::Check),
        3 => cost().prop_map(Op::Take),
        6 => cost().prop_map(Op::Acquire),
        2 => any::<usize>().prop_map(Op::Refund),
        1 => any::<usize>().prop_map(Op::Keep),
        2 => any::<usize>().prop_map(Op::GiveUp),
        1 => (0_usize..4, 1_u32..6).prop_map(|(period, burst)| Op::SetRate(period, burst)),
        4 => (0_u64..40).prop_map(Op::Advance),
        3 => Just(Op::RunWaiters),
    ]
}

/// In nanoseconds.
struct Bucket {
    period: u64,
    burst: u64,
    /// When it is full.
    full_at: u64,
    /// Nothing has come back since it was full, but for tokens that were the last to be taken: they count as never taken.
    exact: bool,
    /// Counts what was paid, and what makes the last payment the last no more.
    payments: usize,
}

impl Bucket {
    /// The wait of a call with this cost, if it can ever pass.
    fn wait(&self, now: u64, cost: u32) -> Option<u64> {
        let (cost, burst) = (u64::from(cost) * self.period, self.burst * self.period);
        (cost <= burst).then(|| (self.full_at.max(now) + cost).saturating_sub(now + burst))
    }

    fn pay(&mut self, now: u64, cost: u32) {
        self.exact |= self.full_at <= now;
        self.full_at = self.full_at.max(now) + u64::from(cost) * self.period;
        self.payments += 1;
    }

    /// The tokens of this payment come back.
    fn refund(&mut self, payment: usize, cost: u32) {
        if self.exact && payment == self.payments {
            self.full_at -= u64::from(cost) * self.period;
            // The one before it is not the last in the limiter's eyes, which sees only where it ended.
            self.payments += 1;
        } else {
            self.exact = false;
        }
    }

    fn set(&mut self, now: u64, period: u64, burst: u64) {
        let debt = self.full_at.saturating_sub(now);
        assert_eq!(debt * period % self.period, 0, "the periods are chosen so that nothing is rounded");
        self.full_at = now + debt * period / self.period;
        (self.period, self.burst) = (period, burst);
        // What was taken before cannot be returned to the new rate.
        self.payments += 1;
    }
}

/// Tokens that are used at some time, under some rate.
struct Use {
    due: u64,
    cost: u32,
    segment: usize,
}

type Acquire<'a> = Pin<Box<dyn Future<Output = Result<(), Rejection>> + 'a>>;

/// How many had paid when this was paid, it included, and what.
#[derive(Clone, Copy)]
struct Paid {
    payment: usize,
    cost: u32,
}

struct Waiter<'a> {
    paid: Paid,
    task: Spawn<Acquire<'a>>,
    begun: u64,
    segment: usize,
    /// At the latest; exactly then, if nothing had come back when it began to wait.
    due: u64,
    exact: bool,
}

struct Course<'a> {
    limiter: &'a RateLimiter,
    bucket: Bucket,
    now: u64,
    segment: usize,
    /// With the number of their use, and what they cost.
    tokens: Vec<(Token<'a>, usize, Paid)>,
    waiters: Vec<Waiter<'a>>,
    /// `None`: given back.
    used: Vec<Option<Use>>,
    /// The burst of each segment, and its period.
    rates: Vec<(u64, u64)>,
    waited: Arc<Mutex<Vec<Duration>>>,
}

/// A timer's time, which is in whole milliseconds.
fn timer(at: u64) -> u64 {
    at.div_ceil(MS) * MS
}

impl<'a> Course<'a> {
    fn used(&mut self, due: u64, cost: u32, segment: usize) {
        self.used.push(Some(Use { due, cost, segment }));
    }

    /// An answer that came at once: `None` for tokens, or the time to wait.
    fn compare(&mut self, refused: Option<&Rejection>, cost: u32, patience: u64) {
        // Full, it has forgotten what came back.
        self.bucket.exact |= self.bucket.full_at <= self.now;
        let (strict, exact) = (self.bucket.wait(self.now, cost), self.bucket.exact);
        match refused {
            None => {
                let strict = strict.expect("more than the burst");
                assert!(!exact || strict == 0, "too early, by {strict} ns");
                self.bucket.pay(self.now, cost);
            }
            Some(rejection) => {
                let Rejection::RateLimited { retry_after, limit, .. } = rejection else { panic!("{rejection}") };
                assert_eq!(u64::from(*limit), self.bucket.burst);
                let retry_after = retry_after.map(|after| after.as_nanos() as u64);
                match (retry_after, strict) {
                    (None, None) => {}
                    (Some(after), Some(strict)) => {
                        assert!(after > patience, "it could have waited");
                        assert!(if exact { after == strict } else { after <= strict }, "{after} or {strict}");
                    }
                    differ => panic!("whether it ever passes: {differ:?}"),
                }
            }
        }
    }

    fn acquire(&mut self, cost: u32) {
        let mut task = task::spawn(self.limiter.acquire(cost).boxed_local());
        match task.poll() {
            Poll::Ready(Ok(())) => {
                self.compare(None, cost, PATIENCE);
                self.used(self.now, cost, self.segment);
            }
            Poll::Ready(Err(rejection)) => self.compare(Some(&rejection), cost, PATIENCE),
            Poll::Pending => {
                self.bucket.exact |= self.bucket.full_at <= self.now;
                let exact = self.bucket.exact;
                let wait = self.bucket.wait(self.now, cost).expect("it waits for what never comes");
                assert!(wait > 0 && (!exact || wait <= PATIENCE), "a wait of {wait} ns");
                self.bucket.pay(self.now, cost);
                let (begun, segment) = (self.now, self.segment);
                let paid = Paid { payment: self.bucket.payments, cost };
                self.waiters.push(Waiter { paid, task, begun, segment, due: self.now + wait.min(PATIENCE), exact });
            }
        }
    }

    fn run_waiters(&mut self) {
        for mut waiter in std::mem::take(&mut self.waiters) {
            let late = self.now >= timer(waiter.due);
            assert!(!late || waiter.task.is_woken(), "a wake-up is lost");
            match waiter.task.poll() {
                Poll::Ready(served) => {
                    served.unwrap();
                    assert!(late || !waiter.exact, "before its time");
                    let waited = self.waited.lock().unwrap().pop().expect("it says how long it waited");
                    let due = waiter.begun + waited.as_nanos() as u64;
                    assert!(due <= self.now, "used before it was due");
                    self.used(due, waiter.paid.cost, waiter.segment);
                }
                Poll::Pending => {
                    assert!(!late, "after its time");
                    self.waiters.push(waiter);
                }
            }
        }
    }

    /// Of the tokens that were used under one rate, no interval holds more than its due.
    fn check_rates(&self) {
        for (segment, (burst, period)) in self.rates.iter().enumerate() {
            let uses = self.used.iter().flatten().filter(|used| used.segment == segment);
            let mut used: Vec<_> = uses.flat_map(|used| vec![used.due; used.cost as usize]).collect();
            used.sort_unstable();
            for (from, a) in used.iter().enumerate() {
                for (to, b) in used.iter().enumerate().skip(from) {
                    let held = (to - from + 1) as u64;
                    assert!(held <= burst + (b - a) / period, "{held} in [{a}, {b}]: {used:?}");
                }
            }
        }
    }
}

async fn compare(ops: Vec<Op>) {
    let waited = Arc::<Mutex<Vec<Duration>>>::default();
    let recorder = Recorder::new();
    let times = Arc::clone(&waited);
    let observer = move |event: &Event<'_>| {
        if let EventKind::WaitCompleted { waited } = event.kind {
            times.lock().unwrap().push(waited);
        }
    };
    let rate = |period| Rate::new(1, Duration::from_nanos(period));
    let limiter = RateLimiter::builder("l", rate(PERIODS[0]))
        .burst(3)
        .max_wait(Duration::from_nanos(PATIENCE))
        .observer((recorder.clone(), observer))
        .build()
        .unwrap();
    let bucket = Bucket { period: PERIODS[0], burst: 3, full_at: 0, exact: true, payments: 0 };
    let mut course = Course {
        limiter: &limiter,
        bucket,
        now: 0,
        segment: 0,
        tokens: Vec::new(),
        waiters: Vec::new(),
        used: Vec::new(),
        rates: vec![(3, PERIODS[0])],
        waited,
    };
    let (mut refunds, mut given_up) = (0, 0);
    for op in ops {
        match op {
            Op::Check(cost) => {
                let peeked = limiter.peek(cost);
                let got = limiter.check_n(cost);
                assert_eq!(peeked.is_ok(), got.is_ok(), "a look and a check are of one mind");
                course.compare(got.as_ref().err(), cost, 0);
                if got.is_ok() {
                    course.used(course.now, cost, course.segment);
                }
            }
            Op::Take(cost) => {
                let got = limiter.try_acquire(cost);
                course.compare(got.as_ref().err(), cost, 0);
                if let Ok(token) = got {
                    let paid = Paid { payment: course.bucket.payments, cost };
                    course.tokens.push((token, course.used.len(), paid));
                    course.used(course.now, cost, course.segment);
                }
            }
            Op::Acquire(cost) => course.acquire(cost),
            Op::Refund(which) if !course.tokens.is_empty() => {
                let (token, number, paid) = course.tokens.swap_remove(which % course.tokens.len());
                token.refund();
                course.used[number] = None;
                course.bucket.refund(paid.payment, paid.cost);
                refunds += 1;
            }
            Op::Keep(which) if !course.tokens.is_empty() => {
                drop(course.tokens.swap_remove(which % course.tokens.len()));
            }
            Op::GiveUp(which) if !course.waiters.is_empty() => {
                let Waiter { paid, .. } = course.waiters.swap_remove(which % course.waiters.len());
                course.bucket.refund(paid.payment, paid.cost);
                given_up += 1;
            }
            Op::Refund(_) | Op::Keep(_) | Op::GiveUp(_) => {}
            Op::SetRate(period, burst) => {
                let period = PERIODS[period];
                limiter.set_rate(rate(period), burst).unwrap();
                course.bucket.set(course.now, period, burst.into());
                course.segment += 1;
                course.rates.push((burst.into(), period));
            }
            Op::Advance(millis) => {
                tokio::time::advance(Duration::from_millis(millis)).await;
                course.now += millis * MS;
            }
            Op::RunWaiters => course.run_waiters(),
        }
        let Bucket { period, burst, full_at, exact, .. } = course.bucket;
        let snapshot = limiter.snapshot();
        assert_eq!(u64::from(snapshot.burst), burst);
        let strict = (burst * period).saturating_sub(full_at.saturating_sub(course.now)) / period;
        let available = u64::from(snapshot.available);
        assert!(if exact { available == strict } else { available >= strict }, "{available} or {strict}");
        assert!(available <= burst);
    }
    tokio::time::advance(Duration::from_nanos(PATIENCE + MS)).await;
    course.now += PATIENCE + MS;
    course.run_waiters();
    assert!(course.waiters.is_empty());
    course.check_rates();
    course.tokens.clear();
    let count = |prefix| recorder.count(prefix);
    assert_eq!(count("cancelled waiting"), given_up);
    assert_eq!(count("cancelled"), given_up + refunds);
    assert_eq!(count("admitted"), count("completed") + refunds, "each call that was let in has one end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // L1 to L7, L15 to L21, L33, G23
    #[test]
    fn a_limiter_is_between_a_strict_bucket_and_its_rate(ops in prop::collection::vec(op(), 0..120)) {
        paused(compare(ops));
    }
}
