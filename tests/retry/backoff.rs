//! The delays between attempts.

use std::time::Duration;

use proptest::prelude::*;
use tower_rampart::retry::{Backoff, Jitter, Retry};

use crate::ms;

const JITTERS: [Jitter; 4] = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// R7
#[test]
fn without_jitter_the_delays_are_exact() {
    let plain = |backoff: Backoff| backoff.jitter(Jitter::None).delays(0).take(6).collect::<Vec<_>>();
    assert_eq!(plain(Backoff::exponential(ms(50), secs(1))), [50, 100, 200, 400, 800, 1000].map(ms));
    assert_eq!(plain(Backoff::exponential(ms(10), secs(1)).factor(3.0)), [10, 30, 90, 270, 810, 1000].map(ms));
    assert_eq!(
        plain(Backoff::exponential(ms(10), secs(1)).factor(1.5))[..3],
        [ms(10), ms(15), Duration::from_micros(22_500)]
    );
    assert_eq!(plain(Backoff::fixed(ms(7))), [7; 6].map(ms));
}

// R8: also for whole seconds, where truncating to seconds would leave a single value.
#[test]
fn jitter_spreads_whole_second_delays_over_their_range() {
    for delay in [secs(1), secs(2), secs(4)] {
        for (jitter, low, high) in [
            (Jitter::Full, Duration::ZERO, delay),
            (Jitter::Equal, delay / 2, delay),
            (Jitter::Decorrelated, delay, delay * 3),
        ] {
            let backoff = Backoff::exponential(delay, secs(60)).jitter(jitter);
            let mut firsts: Vec<_> = (0..400).map(|seed| backoff.delays(seed).next().unwrap()).collect();
            firsts.sort();
            firsts.dedup();
            assert!(firsts.len() > 390, "{jitter:?}: {} distinct delays of 400", firsts.len());
            assert!(*firsts.first().unwrap() >= low && *firsts.last().unwrap() <= high, "{jitter:?}");
            // Each quarter of the range holds about 100 delays; fewer than 50 has a probability of
            // 10^-9.
            for quarter in 0..4 {
                let (from, to) = (low + (high - low) * quarter / 4, low + (high - low) * (quarter + 1) / 4);
                let count = firsts.iter().filter(|delay| (from..=to).contains(delay)).count();
                assert!(count > 50, "{jitter:?} {delay:?}: {count} of 400 in quarter {quarter}");
            }
        }
    }
}

// R8
#[test]
fn the_same_seed_gives_the_same_delays() {
    let delays = |seed| Backoff::default().delays(seed).take(8).collect::<Vec<_>>();
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
}

// R10
#[test]
fn extreme_delays_do_not_overflow() {
    for jitter in JITTERS {
        for backoff in [
            Backoff::exponential(ms(50), Duration::MAX),
            Backoff::exponential(Duration::MAX, Duration::MAX),
            Backoff::exponential(ms(50), secs(20)).factor(f64::MAX),
            Backoff::fixed(Duration::MAX),
            Backoff::fixed(Duration::ZERO),
        ] {
            let backoff = backoff.jitter(jitter);
            assert!(backoff.delays(0).take(200).all(|delay| delay <= backoff.max()), "{backoff:?}");
        }
    }
    let last = Backoff::exponential(ms(50), Duration::MAX).jitter(Jitter::None).delays(0).nth(64).unwrap();
    assert_eq!(last, Duration::from_nanos(u64::MAX), "the longest delay");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // R8, R9
    #[test]
    fn delays_stay_within_their_bounds(
        base in 1_u64..10_000,
        above in 0_u64..100_000,
        factor in 1.0_f64..10.0,
        jitter in prop::sample::select(&JITTERS[..]),
        seed: u64,
    ) {
        let (base, max) = (ms(base), ms(base + above));
        let backoff = Backoff::exponential(base, max).factor(factor).jitter(jitter);
        let plain = backoff.jitter(Jitter::None).delays(0);
        let mut previous = base;
        for (delay, plain) in backoff.delays(seed).zip(plain).take(40) {
            prop_assert!(plain >= base.min(max) && plain <= max);
            let (low, high) = match jitter {
                Jitter::None => (plain, plain),
                Jitter::Full => (Duration::ZERO, plain),
                Jitter::Equal => (plain / 2, plain),
                _ => (base, max.min(previous * 3)),
            };
            prop_assert!((low..=high).contains(&delay), "{:?} is not in {:?}..={:?}", delay, low, high);
            previous = delay;
        }
    }
}

#[test]
fn an_invalid_backoff_is_an_error_with_field_and_reason() {
    let exponential = Backoff::exponential(ms(10), secs(1));
    for backoff in [
        exponential.factor(f64::NAN),
        exponential.factor(f64::INFINITY),
        exponential.factor(0.99),
        Backoff::exponential(secs(2), secs(1)),
        Backoff::exponential(Duration::ZERO, secs(1)),
    ] {
        let error = Retry::builder("test").backoff(backoff).build().unwrap_err();
        assert_eq!(error.field(), "backoff");
        assert!(!error.reason().is_empty());
    }
    Retry::builder("immediate").backoff(Backoff::fixed(Duration::ZERO)).build().unwrap();
}
