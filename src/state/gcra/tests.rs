use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::state::sync::{Ops, count};

const ADMITTED: Ops = Ops { loads: 2, stores: 0, rmws: 1 };
const REFUSED: Ops = Ops { loads: 2, stores: 0, rmws: 0 };

fn gcra(count: u32, per: Duration, burst: u32) -> Gcra {
    Gcra::new(Params::new(count, per, burst).unwrap())
}

fn take(gcra: &Gcra, now: Nanos) -> bool {
    gcra.reserve(now, 1, Duration::ZERO).is_ok()
}

fn at(nanos: u64) -> Nanos {
    Nanos::new(nanos)
}

#[test]
fn the_cost_contract_holds() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    assert_eq!(count(|| take(&gcra, at(0))), (true, ADMITTED));
    assert_eq!(count(|| take(&gcra, at(0))), (false, REFUSED));
    assert_eq!(count(|| gcra.peek(at(0), 1).is_ok()), (false, REFUSED));
}

// L1, L2, L3, L8
#[test]
fn a_burst_passes_and_then_one_each_period_to_the_nanosecond() {
    let gcra = gcra(10, Duration::from_secs(1), 5);
    assert!((0..5).all(|_| take(&gcra, at(0))));
    let Err(Refusal::Wait(wait)) = gcra.reserve(at(0), 1, Duration::ZERO) else { panic!("a sixth passed") };
    assert_eq!(wait, Duration::from_millis(100));
    assert!(!take(&gcra, at(99_999_999)));
    assert!(take(&gcra, at(100_000_000)));
    assert!(!take(&gcra, at(100_000_000)));
}

// L4, L7
#[test]
fn odd_rates_do_not_drift_above_what_was_asked_for() {
    for count in [3_u32, 7, 700_000, 999_999_937] {
        let gcra = gcra(count, Duration::from_secs(1), 1);
        let (mut now, mut admitted, mut last) = (at(0), 0_u64, 0);
        for _ in 0..10_000 {
            match gcra.reserve(now, 1, Duration::ZERO) {
                Ok(_) => (admitted, last) = (admitted + 1, now.get()),
                Err(Refusal::Wait(wait)) => now = now.saturating_add(wait),
                Err(Refusal::Never) => panic!("one token is never too many"),
            }
        }
        let allowed = 1.0 + last as f64 * f64::from(count) / 1e9;
        assert!(admitted as f64 <= allowed + 1e-6, "{admitted} of {allowed} at {count}/s");
        assert!(admitted as f64 >= allowed * 0.49, "too strict: {admitted} of {allowed} at {count}/s");
    }
}

// L6, L9, L10
#[test]
fn strange_clocks_do_no_harm() {
    let gcra = gcra(1, Duration::from_secs(1), 3);
    let hour = at(3_600_000_000_000);
    assert!((0..3).all(|_| take(&gcra, hour)));
    assert!(!take(&gcra, hour), "an idle hour fills the bucket, and no more");
    assert!(!take(&gcra, at(0)), "backwards");
    assert!(take(&gcra, hour.saturating_add(Duration::from_secs(1))));
    assert!(take(&gcra, Nanos::MAX) && take(&gcra, Nanos::MAX), "past the horizon it admits");
}

// L19
#[test]
fn a_cost_is_all_or_nothing_and_one_above_the_burst_is_never() {
    let gcra = gcra(1, Duration::from_secs(1), 3);
    assert!(gcra.reserve(at(0), 2, Duration::ZERO).is_ok());
    let wait = gcra.reserve(at(0), 2, Duration::ZERO).unwrap_err();
    assert_eq!(wait, Refusal::Wait(Duration::from_secs(1)));
    assert!(take(&gcra, at(0)), "the refused call took nothing");
    assert_eq!(gcra.reserve(at(0), 4, Duration::MAX).unwrap_err(), Refusal::Never);
}

// L18
#[test]
fn a_slot_given_back_out_of_order_is_used_by_the_next_who_would_wait() {
    let gcra = gcra(1, Duration::from_secs(1), 1);
    let wait = |seconds| Ok(Duration::from_secs(seconds));
    let reserve = || gcra.reserve(at(0), 1, Duration::MAX);
    let slots: Vec<_> = (0..5).map(|_| reserve().unwrap()).collect();
    gcra.cancel(slots[2].1);
    gcra.cancel(slots[1].1);
    assert_eq!(reserve().map(|(wait, _)| wait), wait(1), "the earliest first");
    assert_eq!(reserve().map(|(wait, _)| wait), wait(2));
    assert_eq!(reserve().map(|(wait, _)| wait), wait(5));
    assert_eq!(count(|| gcra.reserve(at(0), 1, Duration::ZERO).is_err()), (true, REFUSED), "the hint is cleared");
}

// L33
#[test]
fn a_change_of_the_rate_keeps_the_debt_in_tokens() {
    let gcra = gcra(1, Duration::from_secs(1), 10);
    let now = at(1_000_000_000_000);
    assert!((0..10).all(|_| take(&gcra, now)));
    gcra.set(Params::new(100, Duration::from_secs(1), 10).unwrap(), now);
    assert!(!take(&gcra, now), "the bucket is as empty as before");
    assert!(take(&gcra, now.saturating_add(Duration::from_millis(10))), "and fills at the new rate");
    gcra.set(Params::new(1, Duration::from_secs(1), 20).unwrap(), now);
    assert_eq!(gcra.available(now).0, 9, "a larger burst adds the difference, less the token of before");
    for _ in 0..9 {
        gcra.set(Params::new(5, Duration::from_secs(1), 20).unwrap(), now);
    }
    assert_eq!(gcra.available(now).0, 9);
}

// L11, L27
#[test]
fn eight_threads_get_exactly_the_burst() {
    let gcra = gcra(1, Duration::from_secs(3600), 1000);
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..500).filter(|_| take(&gcra, at(0))).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1000);
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
    /// G1, with cancellations: of the tokens that were used, no interval holds more than burst + time / period.
    #[test]
    fn no_interval_holds_more_than_its_due(
        burst in 1_u32..6,
        ops in prop::collection::vec((0_u8..10, 0_u64..30, 1_u32..3, 0_u64..60), 1..120),
    ) {
        const PERIOD: u64 = 10;
        let gcra = gcra(1, Duration::from_nanos(PERIOD), burst);
        let mut now = at(1_000);
        let mut slots = VecDeque::new();
        for (op, step, cost, patience) in ops {
            match op {
                0..4 => now = now.saturating_add(Duration::from_nanos(step)),
                // Backwards, too.
                4 => now = now.saturating_sub(Duration::from_nanos(step)),
                5 => if let Some((due, _, slot)) = slots.pop_back() {
                    // Cancelled before its time only: later it was used.
                    if due > now.get() { gcra.cancel(slot) } else { slots.push_back((due, 0, slot)) }
                },
                6 if slots.len() > 1 => {
                    let at = step as usize % slots.len();
                    if slots[at].0 > now.get() { gcra.cancel(slots.remove(at).unwrap().2) }
                }
                _ => if let Ok((wait, slot)) = gcra.reserve(now, cost, Duration::from_nanos(patience)) {
                    slots.push_back((now.saturating_add(wait).get(), cost, slot));
                },
            }
        }
        let mut used: Vec<_> = slots.iter().flat_map(|(due, _, slot)| vec![*due; slot.cost as usize]).collect();
        used.sort_unstable();
        for (from, a) in used.iter().enumerate() {
            for (to, b) in used.iter().enumerate().skip(from) {
                let held = (to - from + 1) as u64;
                prop_assert!(held <= u64::from(burst) + (b - a) / PERIOD, "{held} in [{a}, {b}]: {used:?}");
            }
        }
    }

    /// Without cancellations it is a token bucket, to the nanosecond.
    #[test]
    fn it_agrees_with_a_token_bucket(
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
                Err(Refusal::Never)
            } else if price <= level {
                level -= price;
                Ok(())
            } else {
                Err(Refusal::Wait(Duration::from_nanos(price - level)))
            };
            prop_assert_eq!(gcra.reserve(now, cost, Duration::ZERO).map(drop), expected);
            prop_assert_eq!(u64::from(gcra.available(now).0), level / PERIOD);
        }
    }
}
