//! A rate limiter between two bounds: a token bucket without refunds below, and the rate itself
//! above.
//!
//! Calls that wait are a queue in order of arrival, which owns no tokens. A limiter that accepts
//! refunds may admit more than such a bucket, never less, and no interval may hold more used tokens
//! than the burst and the rate allow. Until the first refund, limiter and bucket agree to the
//! nanosecond. Tasks are polled as soon as they are woken.

use std::{
    collections::VecDeque,
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

use super::support::{paused, recorder::Recorder};

const MS: u64 = 1_000_000;
const MAX_WAIT: u64 = 60 * MS;
const LATENESS: u64 = 10 * MS;
/// Each twice the one before, so that converting the debt leaves no remainder.
const PERIODS: [u64; 4] = [10 * MS, 20 * MS, 40 * MS, 80 * MS];

#[derive(Clone, Debug)]
enum Op {
    Check(u32),
    Take(u32),
    Acquire(u32),
    Refund(usize),
    Keep(usize),
    DropWaiter(usize),
    SetRate(usize, u32),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let cost = || prop_oneof![4 => Just(1_u32), 1 => 1_u32..7];
    prop_oneof![
        3 => cost().prop_map(Op::Check),
        3 => cost().prop_map(Op::Take),
        6 => cost().prop_map(Op::Acquire),
        2 => any::<usize>().prop_map(Op::Refund),
        1 => any::<usize>().prop_map(Op::Keep),
        2 => any::<usize>().prop_map(Op::DropWaiter),
        1 => (0_usize..4, 1_u32..6).prop_map(|(period, burst)| Op::SetRate(period, burst)),
        4 => (0_u64..40).prop_map(Op::Advance),
    ]
}

/// The bucket without refunds. Times are in nanoseconds.
struct Bucket {
    period: u64,
    burst: u64,
    /// When the bucket is full again.
    full_at: u64,
    /// Whether nothing was refunded since it was full. Refunding the last tokens taken does not
    /// count: it undoes them.
    exact: bool,
    /// Counts payments, and every change after which the last payment can no longer be undone.
    payments: usize,
}

impl Bucket {
    /// The wait of a call of this cost, if it can ever pass.
    fn wait(&self, now: u64, cost: u32) -> Option<u64> {
        let (cost, burst) = (u64::from(cost) * self.period, self.burst * self.period);
        (cost <= burst).then(|| (self.full_at.max(now) + cost).saturating_sub(now + burst))
    }

    fn pay(&mut self, now: u64, cost: u32) {
        self.exact |= self.full_at <= now;
        self.full_at = self.full_at.max(now) + u64::from(cost) * self.period;
        self.payments += 1;
    }

    /// Refunds the tokens of this payment.
    fn refund(&mut self, payment: usize, cost: u32) {
        if self.exact && payment == self.payments {
            self.full_at -= u64::from(cost) * self.period;
            // The limiter no longer knows where the payment before it ended.
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
        // Tokens taken under the old rate cannot be undone under the new one.
        self.payments += 1;
    }
}

/// Tokens used at a time, under a rate.
struct Use {
    due: u64,
    cost: u32,
    segment: usize,
}

type Acquire<'a> = Pin<Box<dyn Future<Output = Result<(), Rejection>> + 'a>>;

/// The number of a payment, and its cost.
#[derive(Clone, Copy)]
struct Paid {
    payment: usize,
    cost: u32,
}

struct Waiter<'a> {
    cost: u32,
    task: Spawn<Acquire<'a>>,
    started: u64,
}

struct Run<'a> {
    limiter: &'a RateLimiter,
    bucket: Bucket,
    now: u64,
    segment: usize,
    /// Each with the index of its use, and its payment.
    tokens: Vec<(Token<'a>, usize, Paid)>,
    /// In order of arrival.
    waiters: VecDeque<Waiter<'a>>,
    /// `None` for refunded tokens.
    used: Vec<Option<Use>>,
    /// The burst and period of each segment.
    rates: Vec<(u64, u64)>,
    waited: Arc<Mutex<Vec<Duration>>>,
}

impl<'a> Run<'a> {
    fn used(&mut self, due: u64, cost: u32, segment: usize) {
        self.used.push(Some(Use { due, cost, segment }));
    }

    /// The wait of a call behind the queue, if it can ever pass.
    fn wait(&self, cost: u32) -> Option<u64> {
        let queued: u32 = self.waiters.iter().map(|waiter| waiter.cost).sum();
        self.bucket.wait(self.now, cost)?;
        Some(
            (self.bucket.full_at.max(self.now) + u64::from(queued + cost) * self.bucket.period)
                .saturating_sub(self.now + self.bucket.burst * self.bucket.period),
        )
    }

    /// Compares an immediate decision with the bucket: an admission, or a rejection.
    fn compare(&mut self, rejected: Option<&Rejection>, cost: u32, max_wait: u64) {
        // A full bucket has no refunds left.
        self.bucket.exact |= self.bucket.full_at <= self.now;
        let (strict, exact) = (self.wait(cost), self.bucket.exact);
        match rejected {
            None => {
                let strict = strict.expect("more than the burst");
                assert!(self.waiters.is_empty(), "a call overtakes the queue");
                assert!(!exact || strict == 0, "too early, by {strict} ns");
                self.bucket.pay(self.now, cost);
            }
            Some(rejection) => {
                let Rejection::RateLimited { retry_after, limit, .. } = rejection else { panic!("{rejection}") };
                assert_eq!(u64::from(*limit), self.bucket.burst);
                let retry_after = retry_after.map(|after| after.get().as_nanos() as u64);
                match (retry_after, strict) {
                    (None, None) => {}
                    (Some(after), Some(strict)) => {
                        assert!(after > max_wait, "it could have waited");
                        assert!(if exact { after == strict } else { after <= strict }, "{after} or {strict}");
                    }
                    differ => panic!("limiter and bucket disagree on whether it ever passes: {differ:?}"),
                }
            }
        }
    }

    fn acquire(&mut self, cost: u32) {
        let mut task = task::spawn(self.limiter.acquire(cost).boxed_local());
        match task.poll() {
            Poll::Ready(Ok(())) => {
                self.compare(None, cost, MAX_WAIT);
                self.used(self.now, cost, self.segment);
            }
            Poll::Ready(Err(rejection)) => self.compare(Some(&rejection), cost, MAX_WAIT),
            Poll::Pending => {
                let wait = self.wait(cost).expect("it waits although it can never pass");
                assert!(wait > 0 && (!self.bucket.exact || wait <= MAX_WAIT), "a wait of {wait} ns");
                self.waiters.push_back(Waiter { cost, task, started: self.now });
            }
        }
    }

    /// Runs the tasks that are woken, as an executor does.
    fn run_waiters(&mut self) {
        while let Some(index) = self.waiters.iter().position(|waiter| waiter.task.is_woken()) {
            let Waiter { cost, started, task } = &mut self.waiters[index];
            let (cost, started, strict) = (*cost, *started, self.bucket.wait(self.now, *cost));
            // A waiter is admitted as of when it was due.
            let since = self.now.saturating_sub(LATENESS).max(started);
            self.bucket.exact |= self.bucket.full_at <= since;
            match task.poll() {
                Poll::Ready(Ok(())) => {
                    assert_eq!(index, 0, "a waiter overtakes another");
                    assert!(!self.bucket.exact || strict == Some(0), "admitted early");
                    let waited = self.waited.lock().unwrap().pop().expect("the wait is reported");
                    let due = started + waited.as_nanos() as u64;
                    assert!(due <= self.now, "used before it was due");
                    self.waiters.remove(index);
                    self.bucket.pay(since, cost);
                    self.used(due, cost, self.segment);
                }
                Poll::Ready(Err(Rejection::RateLimited { retry_after: None, .. })) => {
                    assert_eq!(strict, None);
                    self.waiters.remove(index);
                }
                Poll::Ready(Err(rejection)) => {
                    assert!(self.now > started + MAX_WAIT && self.segment > 0, "{rejection}");
                    self.waiters.remove(index);
                }
                Poll::Pending => {}
            }
        }
        if let Some(first) = self.waiters.front() {
            assert_ne!(self.bucket.wait(self.now, first.cost), Some(0), "a wakeup is lost");
            assert!(self.now <= first.started + MAX_WAIT + 20 * MS, "it waits for too long");
        }
    }

    async fn advance(&mut self, millis: u64) {
        for _ in 0..millis {
            tokio::time::advance(Duration::from_millis(1)).await;
            self.now += MS;
            self.run_waiters();
        }
    }

    /// Checks that no interval holds more used tokens than the burst and the rate allow.
    fn check_rates(&self) {
        for (segment, (burst, period)) in self.rates.iter().enumerate() {
            let uses = self.used.iter().flatten().filter(|used| used.segment == segment);
            let mut used: Vec<_> = uses.flat_map(|used| vec![used.due; used.cost as usize]).collect();
            used.sort_unstable();
            for (from, a) in used.iter().enumerate() {
                for (to, b) in used.iter().enumerate().skip(from) {
                    let count = (to - from + 1) as u64;
                    assert!(count <= burst + (b - a) / period, "{count} in [{a}, {b}]: {used:?}");
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
        .max_wait(Duration::from_nanos(MAX_WAIT))
        .observer((recorder.clone(), observer))
        .build()
        .unwrap();
    let bucket = Bucket { period: PERIODS[0], burst: 3, full_at: 0, exact: true, payments: 0 };
    let mut run = Run {
        limiter: &limiter,
        bucket,
        now: 0,
        segment: 0,
        tokens: Vec::new(),
        waiters: VecDeque::new(),
        used: Vec::new(),
        rates: vec![(3, PERIODS[0])],
        waited,
    };
    let (mut refunds, mut dropped) = (0, 0);
    for op in ops {
        match op {
            Op::Check(cost) => {
                let peeked = limiter.peek(cost);
                let got = limiter.check_n(cost);
                assert_eq!(peeked.is_ok(), got.is_ok(), "peek and check agree");
                run.compare(got.as_ref().err(), cost, 0);
                if got.is_ok() {
                    run.used(run.now, cost, run.segment);
                }
            }
            Op::Take(cost) => {
                let got = limiter.try_acquire(cost);
                run.compare(got.as_ref().err(), cost, 0);
                if let Ok(token) = got {
                    let paid = Paid { payment: run.bucket.payments, cost };
                    run.tokens.push((token, run.used.len(), paid));
                    run.used(run.now, cost, run.segment);
                }
            }
            Op::Acquire(cost) => run.acquire(cost),
            Op::Refund(which) if !run.tokens.is_empty() => {
                let (token, number, paid) = run.tokens.swap_remove(which % run.tokens.len());
                token.refund();
                run.used[number] = None;
                run.bucket.refund(paid.payment, paid.cost);
                refunds += 1;
            }
            Op::Keep(which) if !run.tokens.is_empty() => {
                drop(run.tokens.swap_remove(which % run.tokens.len()));
            }
            Op::DropWaiter(which) if !run.waiters.is_empty() => {
                run.waiters.remove(which % run.waiters.len());
                dropped += 1;
            }
            Op::Refund(_) | Op::Keep(_) | Op::DropWaiter(_) => {}
            Op::SetRate(period, burst) => {
                let period = PERIODS[period];
                limiter.set_rate(rate(period), burst).unwrap();
                run.bucket.set(run.now, period, burst.into());
                run.segment += 1;
                run.rates.push((burst.into(), period));
            }
            Op::Advance(millis) => run.advance(millis).await,
        }
        run.run_waiters();
        let Bucket { period, burst, full_at, exact, .. } = run.bucket;
        let snapshot = limiter.snapshot();
        assert_eq!(u64::from(snapshot.burst), burst);
        let queued: u32 = run.waiters.iter().map(|waiter| waiter.cost).sum();
        let debt = full_at.saturating_sub(run.now) + u64::from(queued) * period;
        let strict = (burst * period).saturating_sub(debt) / period;
        let available = u64::from(snapshot.available);
        assert!(if exact { available == strict } else { available >= strict }, "{available} or {strict}");
        assert!(available <= burst);
    }
    run.advance(MAX_WAIT / MS + 20).await;
    assert!(run.waiters.is_empty());
    run.check_rates();
    run.tokens.clear();
    let count = |prefix| recorder.count(prefix);
    assert_eq!(count("cancelled waiting"), dropped);
    assert_eq!(count("cancelled"), dropped + refunds);
    assert_eq!(count("admitted"), count("completed") + refunds, "each admitted call has one terminal event");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // L1 to L7, L15 to L21, L33, G23
    #[test]
    fn a_limiter_stays_between_a_strict_bucket_and_its_rate(ops in prop::collection::vec(op(), 0..120)) {
        paused(compare(ops));
    }
}
