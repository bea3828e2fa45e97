use std::sync::Mutex;

use proptest::prelude::*;

use super::{exclusive::Taken, *};
use crate::state::atomics::{Ops, count};

const ADMITTED: Ops = Ops { loads: 2, stores: 0, rmws: 1 };
const REJECTED: Ops = Ops { loads: 2, stores: 0, rmws: 0 };

fn gcra(count: u32, per: Duration, burst: u32) -> Gcra {
    Gcra::new(Params::new(count, per, burst).unwrap())
}

fn take(gcra: &Gcra, now: Nanos) -> bool {
    gcra.check(now, 1).is_ok()
}

fn wait(time: Duration) -> Result<(), Denied> {
    Err(Denied::Rejected(GcraRejection::Wait(time.into())))
}

fn at(nanos: u64) -> Nanos {
    Nanos::new(nanos)
}

#[test]
fn the_cost_contract_holds() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    assert_eq!(count(|| take(&gcra, at(0))), (true, ADMITTED));
    assert_eq!(count(|| take(&gcra, at(0))), (false, REJECTED));
    assert_eq!(count(|| gcra.peek(at(0), 1).is_ok()), (false, REJECTED));
    // A slot that can be returned costs a load, of a line that only changes of the rate write.
    let (slot, ops) = count(|| gcra.take(at(1_000_000_000), 1));
    assert_eq!((slot.is_ok(), ops), (true, Ops { loads: 3, ..ADMITTED }));
    let (returned, ops) = count(|| gcra.cancel(slot.unwrap()));
    assert_eq!((returned, ops.rmws), (Ok(()), 1), "the last slot is returned to the TAT");
}

// contract L1, L2, L3, L8
#[test]
fn a_burst_is_admitted_and_then_one_token_per_period_to_the_nanosecond() {
    let gcra = gcra(10, Duration::from_secs(1), 5);
    assert!((0..5).all(|_| take(&gcra, at(0))));
    assert_eq!(gcra.check(at(0), 1), wait(Duration::from_millis(100)));
    assert!(!take(&gcra, at(99_999_999)));
    assert!(take(&gcra, at(100_000_000)));
    assert!(!take(&gcra, at(100_000_000)));
}

// contract L4, L7
#[test]
fn odd_rates_do_not_drift_above_the_configured_rate() {
    for count in [3_u32, 7, 700_000, 79_999_937] {
        let gcra = gcra(count, Duration::from_secs(1), 1);
        let (mut now, mut admitted, mut last) = (at(0), 0_u64, 0);
        for _ in 0..10_000 {
            match gcra.check(now, 1) {
                Ok(()) => (admitted, last) = (admitted + 1, now.get()),
                Err(Denied::Rejected(GcraRejection::Wait(wait))) => now = now.saturating_add(wait.get()),
                Err(denied) => panic!("{denied:?}"),
            }
        }
        let allowed = 1.0 + last as f64 * f64::from(count) / 1e9;
        assert!(admitted as f64 <= allowed + 1e-6, "{admitted} of {allowed} at {count}/s");
        assert!(admitted as f64 >= allowed * 0.49, "too strict: {admitted} of {allowed} at {count}/s");
    }
}

// contract L6, L9, L10
#[test]
fn idle_and_backward_clocks_admit_no_more_than_the_rate() {
    let gcra = gcra(1, Duration::from_secs(1), 3);
    let hour = at(3_600_000_000_000);
    assert!((0..3).all(|_| take(&gcra, hour)));
    assert!(!take(&gcra, hour), "an idle hour only fills the bucket");
    assert!(!take(&gcra, at(0)), "the clock went backwards");
    assert!(take(&gcra, hour.saturating_add(Duration::from_secs(1))));
    assert!(take(&gcra, Nanos::MAX) && take(&gcra, Nanos::MAX), "every call is admitted past the horizon");
}

// contract L19
#[test]
fn a_cost_is_all_or_nothing_and_never_above_the_burst() {
    let gcra = gcra(1, Duration::from_secs(1), 3);
    assert!(gcra.check(at(0), 2).is_ok());
    assert_eq!(gcra.check(at(0), 2), wait(Duration::from_secs(1)));
    assert!(take(&gcra, at(0)), "the rejected call took nothing");
    assert_eq!(gcra.check(at(0), 4), Err(Denied::Rejected(GcraRejection::Never)));
}

/// A limiter with its lock held, as its owner uses it.
struct Shared {
    gcra: Gcra,
    returned: Mutex<Returned>,
}

const NO_LINE: Line = Line { tokens: 0, first: 0 };

impl Shared {
    fn new(gcra: Gcra) -> Self {
        Self { gcra, returned: Mutex::default() }
    }

    fn locked<R>(&self, work: impl FnOnce(&mut Returned) -> R) -> R {
        let mut returned = self.returned.lock().unwrap();
        self.gcra.set_contended(true);
        let result = work(&mut returned);
        self.gcra.set_contended(!returned.is_empty());
        result
    }

    fn take(&self, now: Nanos, cost: u32) -> Result<Slot, GcraRejection> {
        match self.gcra.take(now, cost) {
            Ok(slot) => Ok(slot),
            Err(Denied::Rejected(rejection)) => Err(rejection),
            Err(Denied::Contended) => {
                self.locked(|returned| self.gcra.take_exclusive(returned, now, now, cost)).map(|taken| taken.slot)
            }
        }
    }

    fn cancel(&self, slot: Slot) {
        if let Err(slot) = self.gcra.cancel(slot) {
            self.locked(|returned| self.gcra.cancel_exclusive(returned, slot));
        }
    }

    fn set(&self, params: Params, now: Nanos) {
        self.locked(|returned| self.gcra.set(returned, params, now));
    }

    fn available(&self, now: Nanos) -> (u32, Duration) {
        self.locked(|returned| self.gcra.available(NO_LINE, returned, now))
    }
}

// contract L18
#[test]
fn a_slot_returned_out_of_order_goes_to_the_next_caller() {
    let limiter = Shared::new(gcra(1, Duration::from_secs(1), 3));
    let mut slots: Vec<_> = (0..3).map(|_| limiter.take(at(0), 1).unwrap()).collect();
    limiter.cancel(slots.remove(1));
    assert_eq!(limiter.available(at(0)), (1, Duration::from_secs(2)));
    assert!(limiter.take(at(0), 1).is_ok());
    assert!(limiter.take(at(0), 1).is_err());
    assert_eq!(count(|| take(&limiter.gcra, at(0))), (false, REJECTED), "no longer contended");
}

#[test]
fn a_call_takes_its_tokens_in_pieces_of_returned_time() {
    let limiter = Shared::new(gcra(1, Duration::from_secs(1), 6));
    let mut slots: Vec<_> = (0..6).map(|_| limiter.take(at(0), 1).unwrap()).collect();
    for index in [4, 2, 0] {
        limiter.cancel(slots.remove(index));
    }
    let wait = limiter.take(at(0), 4).unwrap_err();
    assert_eq!(wait, GcraRejection::Wait(Duration::from_secs(1).into()));
    let pieces = limiter.take(at(0), 3).unwrap();
    assert_eq!(limiter.available(at(0)), (0, Duration::from_secs(6)));
    limiter.cancel(pieces);
    assert_eq!(limiter.available(at(0)), (3, Duration::from_secs(3)));
    // Half of the first token's time has passed.
    assert_eq!(limiter.available(at(500_000_000)), (3, Duration::from_secs(3)));
    slots.drain(..).for_each(|slot| limiter.cancel(slot));
    assert_eq!(limiter.available(at(500_000_000)), (6, Duration::ZERO));
}

// contract L33
#[test]
fn a_change_of_the_rate_keeps_the_debt_in_tokens() {
    let gcra = Shared::new(gcra(1, Duration::from_secs(1), 10));
    let now = at(1_000_000_000_000);
    assert!((0..10).all(|_| take(&gcra.gcra, now)));
    gcra.set(Params::new(100, Duration::from_secs(1), 10).unwrap(), now);
    assert!(!take(&gcra.gcra, now), "the bucket is as empty as before");
    assert!(take(&gcra.gcra, now.saturating_add(Duration::from_millis(10))), "and fills at the new rate");
    gcra.set(Params::new(1, Duration::from_secs(1), 20).unwrap(), now);
    assert_eq!(gcra.available(now).0, 9, "a larger burst adds the difference, less the token taken before");
    for _ in 0..9 {
        gcra.set(Params::new(5, Duration::from_secs(1), 20).unwrap(), now);
    }
    assert_eq!(gcra.available(now).0, 9);
}

// contract L11, L27
#[test]
fn eight_threads_take_exactly_the_burst() {
    let gcra = gcra(1, Duration::from_secs(3600), 1000);
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..500).filter(|_| take(&gcra, at(0))).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1000);
}

// gcra.I4
#[test]
fn concurrent_callers_that_take_and_return_never_share_time() {
    let limiter = Shared::new(gcra(1, Duration::from_nanos(1000), 100_000));
    let mut spans: Vec<_> = std::thread::scope(|scope| {
        let limiter = &limiter;
        let work = move |seed: u64| {
            let (mut kept, mut random) = (Vec::new(), seed);
            for _ in 0..500 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                kept.push(limiter.take(at(0), 1).unwrap());
                if random >> 63 == 0 {
                    limiter.cancel(kept.swap_remove((random >> 32) as usize % kept.len()));
                }
            }
            kept.into_iter().flat_map(spans).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (1..5).map(|seed| scope.spawn(move || work(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    spans.sort_unstable_by_key(|span| span.start);
    assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "time is shared");
    let taken: u64 = spans.iter().map(|span| span.end - span.start).sum();
    assert_eq!(limiter.available(at(0)).1, Duration::from_nanos(taken / 8), "time is lost");
}

fn spans(slot: Slot) -> Vec<Span> {
    slot.earlier.iter().flatten().chain([&slot.span]).copied().collect()
}

#[test]
fn parameters_survive_packing_and_are_rounded_to_the_strict_side() {
    for (count, seconds, burst) in [(1, 1, 1), (7, 1, 3), (5, 900, 5), (1, 86_400, 1), (1, 86_400 * 365, 2)] {
        let params = Params::new(count, Duration::from_secs(seconds), burst).unwrap();
        let exact = seconds as f64 * 8e9 / f64::from(count);
        let rounded = params.period as f64;
        assert!(rounded >= exact * 0.999_999_999 && rounded <= exact * 1.000_000_001, "{rounded} for {exact}");
        assert_eq!(Params::unpack(params.pack()), params);
    }
    let year = Duration::from_secs(86_400 * 365);
    assert_eq!(Params::new(1, Duration::MAX, 1), Err(ParamsError::RateTooLow));
    assert_eq!(Params::new(1, 3 * year, 1), Err(ParamsError::RateTooLow));
    assert_eq!(Params::new(1, year, 3), Err(ParamsError::BurstTooLong));
    assert_eq!(Params::new(u32::MAX, Duration::from_secs(1), 1), Err(ParamsError::RateTooHigh));
    assert!(Params::new(2_000_000_000, Duration::from_secs(1), 1).is_ok(), "four units each");
    assert!(Params::new(u32::MAX, u32::MAX * year, 1).is_ok());
}

proptest! {
    /// gcra.I1 with cancellations: of the tokens that were used, no interval holds more than burst
    /// + time / period. A call that has waited counts from when it was due.
    #[test]
    fn no_interval_exceeds_the_burst_and_the_rate(
        burst in 1_u32..6,
        ops in prop::collection::vec((0_u8..10, 0_u64..30, 1_u32..4, any::<usize>()), 1..160),
    ) {
        const PERIOD: u64 = 10;
        let limiter = Shared::new(gcra(1, Duration::from_nanos(PERIOD), burst));
        let mut now = at(1_000);
        let mut used: Vec<(u64, u32, Slot)> = Vec::new();
        for (op, step, cost, which) in ops {
            match op {
                0..4 => now = now.saturating_add(Duration::from_nanos(step)),
                // The clock goes backwards, too.
                4 => now = now.saturating_sub(Duration::from_nanos(step)),
                5 | 6 if !used.is_empty() => limiter.cancel(used.swap_remove(which % used.len()).2),
                7 => {
                    let arrived = now.saturating_sub(Duration::from_nanos(step));
                    let taken =
                        limiter.locked(|returned| limiter.gcra.take_exclusive(returned, now, arrived, cost));
                    if let Ok(Taken { slot, due }) = taken {
                        prop_assert!(due >= arrived && due <= now);
                        used.push((due.get(), cost, slot));
                    }
                }
                _ => if let Ok(slot) = limiter.take(now, cost) {
                    used.push((now.get(), cost, slot));
                },
            }
        }
        let mut used: Vec<_> = used.iter().flat_map(|(due, cost, _)| vec![*due; *cost as usize]).collect();
        used.sort_unstable();
        for (from, a) in used.iter().enumerate() {
            for (to, b) in used.iter().enumerate().skip(from) {
                let held = (to - from + 1) as u64;
                prop_assert!(held <= u64::from(burst) + (b - a) / PERIOD, "{held} in [{a}, {b}]: {used:?}");
            }
        }
    }

    /// contract L18, L21: in whatever order tokens are returned, and whatever the rate was when
    /// they were taken, none is lost whose time has not begun.
    #[test]
    fn tokens_returned_in_any_order_are_all_available_again(
        order in Just((0..600_usize).collect::<Vec<_>>()).prop_shuffle(),
        changes in prop::collection::vec((0..600_usize, 1_u64..5), 0..5),
    ) {
        let limiter = Shared::new(gcra(1, Duration::from_secs(60), 700));
        let mut slots: Vec<_> = order.iter().map(|_| Some(limiter.take(at(0), 1).unwrap())).collect();
        for (done, index) in order.into_iter().enumerate() {
            for (_, minutes) in changes.iter().filter(|(at, _)| *at == done) {
                limiter.set(Params::new(1, Duration::from_secs(60 * minutes), 700).unwrap(), at(0));
            }
            limiter.cancel(slots[index].take().unwrap());
        }
        prop_assert_eq!(limiter.available(at(0)), (700, Duration::ZERO));
        prop_assert!(limiter.returned.lock().unwrap().is_empty());
    }

    /// Without cancellations, a token bucket to the nanosecond.
    #[test]
    fn limiter_matches_a_token_bucket(
        burst in 1_u32..6,
        ops in prop::collection::vec((0_u64..40, 1_u32..7), 1..120),
    ) {
        const PERIOD: u64 = 10;
        let gcra = gcra(1, Duration::from_nanos(PERIOD), burst);
        let cap = u64::from(burst) * PERIOD;
        let (mut now, mut level) = (at(0), cap);
        for (step, cost) in ops {
            now = now.saturating_add(Duration::from_nanos(step));
            level = (level + step).min(cap);
            let price = u64::from(cost) * PERIOD;
            let expected = if cost > burst {
                Err(GcraRejection::Never)
            } else if price <= level {
                level -= price;
                Ok(())
            } else {
                Err(GcraRejection::Wait(Duration::from_nanos(price - level).into()))
            };
            prop_assert_eq!(gcra.check(now, cost), expected.map_err(Denied::Rejected));
            let (available, _) = gcra.available(NO_LINE, &mut Returned::default(), now);
            prop_assert_eq!(u64::from(available), level / PERIOD);
        }
    }
}
