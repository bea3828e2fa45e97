use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::state::atomics::{Ops, count};

const ADMITTED: Ops = Ops { loads: 2, stores: 0, rmws: 1 };
const REJECTED: Ops = Ops { loads: 2, stores: 0, rmws: 0 };

fn gcra(count: u32, per: Duration, burst: u32) -> Gcra {
    Gcra::new(Params::new(count, per, burst).unwrap())
}

fn take(gcra: &Gcra, now: Nanos) -> bool {
    gcra.check(now, 1).is_ok()
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
    let (reserved, ops) = count(|| gcra.reserve(at(0), 1, Duration::MAX));
    assert_eq!((reserved.is_ok(), ops), (true, Ops { loads: 3, ..ADMITTED }));
    let (_, ops) = count(|| gcra.cancel(reserved.unwrap().1));
    assert_eq!(ops.rmws, 1, "the last slot is returned to the TAT");
}

// contract L1, L2, L3, L8
#[test]
fn a_burst_is_admitted_and_then_one_token_per_period_to_the_nanosecond() {
    let gcra = gcra(10, Duration::from_secs(1), 5);
    assert!((0..5).all(|_| take(&gcra, at(0))));
    let Err(GcraRejection::Wait(wait)) = gcra.reserve(at(0), 1, Duration::ZERO) else { panic!("a sixth was admitted") };
    assert_eq!(wait, Duration::from_millis(100));
    assert!(!take(&gcra, at(99_999_999)));
    assert!(take(&gcra, at(100_000_000)));
    assert!(!take(&gcra, at(100_000_000)));
}

// contract L4, L7
#[test]
fn odd_rates_do_not_drift_above_the_configured_rate() {
    for count in [3_u32, 7, 700_000, 999_999_937] {
        let gcra = gcra(count, Duration::from_secs(1), 1);
        let (mut now, mut admitted, mut last) = (at(0), 0_u64, 0);
        for _ in 0..10_000 {
            match gcra.reserve(now, 1, Duration::ZERO) {
                Ok(_) => (admitted, last) = (admitted + 1, now.get()),
                Err(GcraRejection::Wait(wait)) => now = now.saturating_add(wait),
                Err(GcraRejection::Never) => panic!("one token is never above the burst"),
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
    assert!(gcra.reserve(at(0), 2, Duration::ZERO).is_ok());
    let wait = gcra.reserve(at(0), 2, Duration::ZERO).unwrap_err();
    assert_eq!(wait, GcraRejection::Wait(Duration::from_secs(1)));
    assert!(take(&gcra, at(0)), "the rejected call took nothing");
    assert_eq!(gcra.reserve(at(0), 4, Duration::MAX).unwrap_err(), GcraRejection::Never);
}

// contract L18
#[test]
fn a_slot_returned_out_of_order_goes_to_the_next_caller_that_would_wait() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    let wait = |seconds| Ok(Duration::from_secs(seconds));
    let reserve = || gcra.reserve(at(0), 1, Duration::MAX);
    let slots: Vec<_> = (0..5).map(|_| reserve().unwrap()).collect();
    gcra.cancel(slots[2].1);
    gcra.cancel(slots[1].1);
    assert_eq!(reserve().map(|(wait, _)| wait), wait(1), "the earliest first");
    assert_eq!(reserve().map(|(wait, _)| wait), wait(2));
    assert_eq!(reserve().map(|(wait, _)| wait), wait(5));
    assert_eq!(count(|| take(&gcra, at(0))), (false, REJECTED), "the hint is cleared");
}

// gcra.I3
#[test]
fn a_rejection_writes_nothing_while_a_returned_slot_is_in_the_future() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    let slots: Vec<_> = (0..4).map(|_| gcra.reserve(at(0), 1, Duration::MAX).unwrap().1).collect();
    gcra.cancel(slots[2]);
    let (refused, ops) = count(|| gcra.reserve(at(0), 1, Duration::ZERO));
    assert_eq!(
        refused.unwrap_err(),
        GcraRejection::Wait(Duration::from_secs(2)),
        "the returned slot is the next one due"
    );
    assert_eq!((ops.rmws, ops.stores), (0, 0));
}

#[test]
fn a_change_of_the_rate_drops_returned_slots() {
    let second = Duration::from_secs(1);
    let gcra = gcra(1, second, 1);
    let slots: Vec<_> = (0..4).map(|_| gcra.reserve(at(0), 1, Duration::MAX).unwrap().1).collect();
    gcra.cancel(slots[1]);
    // As many changes as there are versions, so that the version of the slots is current again.
    for _ in 0..4 {
        gcra.set(Params::new(1, second, 1).unwrap(), at(0));
    }
    gcra.cancel(slots[2]);
    gcra.cancel(slots[3]);
    let (wait, _) = gcra.reserve(at(0), 1, Duration::MAX).unwrap();
    assert_eq!(wait, Duration::from_secs(4), "after all slots that were taken");
}

// contract L20
#[test]
fn peeking_sees_returned_slots() {
    let gcra = gcra(1, Duration::from_secs(1), 2);
    let slots: Vec<_> = (0..4).map(|_| gcra.reserve(at(0), 1, Duration::MAX).unwrap().1).collect();
    gcra.cancel(slots[1]);
    assert_eq!(gcra.peek(at(0), 1), Ok(()));
    assert!(take(&gcra, at(0)));
    assert!(gcra.peek(at(0), 1).is_err());
}

#[test]
fn a_call_without_cost_is_admitted_and_takes_nothing() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    let slots: Vec<_> = (0..4).map(|_| gcra.reserve(at(0), 1, Duration::MAX).unwrap().1).collect();
    let (free, ops) = count(|| gcra.reserve(at(0), 0, Duration::ZERO).unwrap());
    assert_eq!((free.0, ops.rmws), (Duration::ZERO, 0));
    gcra.cancel(free.1);
    gcra.cancel(slots[3]);
    assert_eq!(gcra.reserve(at(0), 1, Duration::MAX).unwrap().0, Duration::from_secs(3));
}

// contract L33
#[test]
fn a_change_of_the_rate_keeps_the_debt_in_tokens() {
    let gcra = gcra(1, Duration::from_secs(1), 10);
    let now = at(1_000_000_000_000);
    assert!((0..10).all(|_| take(&gcra, now)));
    gcra.set(Params::new(100, Duration::from_secs(1), 10).unwrap(), now);
    assert!(!take(&gcra, now), "the bucket is as empty as before");
    assert!(take(&gcra, now.saturating_add(Duration::from_millis(10))), "and fills at the new rate");
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
fn concurrent_reservations_and_cancellations_never_share_a_slot() {
    let gcra = gcra(1, Duration::from_nanos(1000), 1);
    let mut ends: Vec<_> = std::thread::scope(|scope| {
        let work = |seed: u64| {
            let (mut kept, mut random) = (Vec::new(), seed);
            for _ in 0..500 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (_, slot) = gcra.reserve(at(0), 1, Duration::MAX).unwrap();
                kept.push(slot);
                if random >> 63 == 0 {
                    gcra.cancel(kept.swap_remove((random >> 32) as usize % kept.len()));
                }
            }
            kept.into_iter().map(|slot| slot.end).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (1..5).map(|seed| scope.spawn(move || work(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= 8000), "slots overlap");
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
    assert_eq!(Params::new(0, Duration::from_secs(1), 1), None);
    assert_eq!(Params::new(1, Duration::ZERO, 1), None);
    assert_eq!(Params::new(1, Duration::from_secs(1), 0), None);
    assert_eq!(Params::new(1, Duration::MAX, 1), None);
    assert_eq!(Params::new(1, Duration::from_secs(86_400 * 365), 3), None);
    assert_eq!(Params::new(1, Duration::from_secs(1), u32::MAX), None);
}

proptest! {
    /// gcra.I1 with cancellations: of the tokens that were used, no interval holds more than burst + time / period.
    #[test]
    fn no_interval_exceeds_the_burst_and_the_rate(
        burst in 1_u32..6,
        ops in prop::collection::vec((0_u8..10, 0_u64..30, 1_u32..3, 0_u64..60), 1..120),
    ) {
        const PERIOD: u64 = 10;
        let gcra = gcra(1, Duration::from_nanos(PERIOD), burst);
        let mut now = at(1_000);
        let mut slots: VecDeque<(u64, u32, Slot)> = VecDeque::new();
        for (op, step, cost, patience) in ops {
            match op {
                0..4 => now = now.saturating_add(Duration::from_nanos(step)),
                // The clock goes backwards, too.
                4 => now = now.saturating_sub(Duration::from_nanos(step)),
                // A wait that was cancelled, or a request that was never sent.
                5 => if let Some((.., slot)) = slots.pop_back() { gcra.cancel(slot) },
                6 if !slots.is_empty() => gcra.cancel(slots.remove(step as usize % slots.len()).unwrap().2),
                _ => if let Ok((wait, slot)) = gcra.reserve(now, cost, Duration::from_nanos(patience)) {
                    slots.push_back((now.saturating_add(wait).get(), cost, slot));
                },
            }
        }
        let mut used: Vec<_> = slots.iter().flat_map(|(due, cost, _)| vec![*due; *cost as usize]).collect();
        used.sort_unstable();
        for (from, a) in used.iter().enumerate() {
            for (to, b) in used.iter().enumerate().skip(from) {
                let held = (to - from + 1) as u64;
                prop_assert!(held <= u64::from(burst) + (b - a) / PERIOD, "{held} in [{a}, {b}]: {used:?}");
            }
        }
    }

    /// contract L18, L21: in whatever order slots are returned, none is lost while there is a cell
    /// for it.
    #[test]
    fn slots_returned_in_any_order_are_all_available_again(
        burst in 1_u32..6,
        order in Just((0..=CELLS).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let gcra = gcra(1, Duration::from_secs(1), burst);
        let slots: Vec<_> = order.iter().map(|_| gcra.reserve(at(0), 1, Duration::MAX).unwrap().1).collect();
        for index in order {
            gcra.cancel(slots[index]);
        }
        prop_assert_eq!(gcra.available(at(0)), (burst, Duration::ZERO));
        prop_assert!(gcra.returned.is_empty());
        prop_assert!((0..burst).all(|_| take(&gcra, at(0))) && !take(&gcra, at(0)));
    }

    /// contract L33: a token bucket to the nanosecond, with waits, cancelled waits and changes of
    /// the rate. The steps are chosen so that the conversions of the debt divide without a
    /// remainder.
    #[test]
    fn limiter_matches_a_token_bucket_whose_rate_changes(
        ops in prop::collection::vec((0_u8..8, 0_u64..12, 1_u32..6, 0_u64..40), 1..120),
    ) {
        const PERIODS: [u64; 4] = [10, 20, 40, 80];
        let params = |choice: u64, burst| Params::new(1, Duration::from_nanos(PERIODS[choice as usize % 4]), burst);
        let (mut period, mut burst) = (10, 3);
        let gcra = Gcra::new(params(0, burst).unwrap());
        // Debt in tenths of a token.
        let (mut now, mut debt, mut last) = (at(0), 0_u64, None);
        for (op, step, number, patience) in ops {
            match op {
                0..3 => {
                    now = now.saturating_add(Duration::from_nanos(8 * step));
                    debt = debt.saturating_sub(8 * step * 10 / period);
                }
                3 => {
                    (period, burst) = (PERIODS[step as usize % 4], number);
                    gcra.set(params(step, number).unwrap(), now);
                    last = None;
                }
                4 => if let Some((slot, cost)) = last.take() {
                    gcra.cancel(slot);
                    debt = debt.saturating_sub(10 * cost);
                },
                _ => {
                    let cost = u64::from(number) * 10;
                    let wait = (debt + cost).saturating_sub(u64::from(burst) * 10) * period / 10;
                    let got = gcra.reserve(now, number, Duration::from_nanos(patience));
                    if number > burst {
                        prop_assert_eq!(got.unwrap_err(), GcraRejection::Never);
                    } else if wait > patience {
                        prop_assert_eq!(got.unwrap_err(), GcraRejection::Wait(Duration::from_nanos(wait)));
                    } else {
                        let (waited, slot) = got.unwrap();
                        prop_assert_eq!(waited, Duration::from_nanos(wait));
                        debt += cost;
                        last = Some((slot, u64::from(number)));
                    }
                }
            }
        }
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
                Err(GcraRejection::Wait(Duration::from_nanos(price - level)))
            };
            prop_assert_eq!(gcra.reserve(now, cost, Duration::ZERO).map(drop), expected);
            prop_assert_eq!(u64::from(gcra.available(now).0), level / PERIOD);
        }
    }
}
