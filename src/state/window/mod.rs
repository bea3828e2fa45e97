//! Windows over the outcomes of calls.

pub(crate) mod count;
pub(crate) mod time;

use super::transition::Cause;

/// The outcome of one call, as a window counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl Sample {
    /// Whether the call neither failed nor was slow, so that it cannot bring a window closer to a
    /// trip.
    pub(crate) fn is_clean(self) -> bool {
        !self.failed && !self.slow
    }
}

/// The calls in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

/// Shares are compared as integers, in parts per million, so that no rounding decides.
pub(crate) const MILLION: u64 = 1_000_000;

/// A share in parts per million. Rounded down, except for the error of a floating-point fraction:
/// two calls of three reach a share of `2.0 / 3.0`.
pub(crate) fn millionths(share: f64) -> u32 {
    // At least one: a window without bad calls never reaches a share above zero.
    ((share * MILLION as f64 + 1e-3) as u32).max(1)
}

/// The thresholds at which a window trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    /// The least number of calls; fewer never trip.
    pub(crate) min_calls: u32,
    /// The share of failures that trips, in parts per million.
    pub(crate) failed: Option<u32>,
    /// The share of slow calls that trips, in parts per million.
    pub(crate) slow: Option<u32>,
}

impl Rates {
    /// Returns the reason to trip, if there is one. Failures come before slow calls.
    pub(crate) fn trip_cause(&self, counts: Counts) -> Option<Cause> {
        let reached = |share: Option<u32>, bad: u64| {
            share
                .is_some_and(|share| bad > 0 && u128::from(bad) * u128::from(MILLION) >= threshold(share, counts.calls))
        };
        if counts.calls < u64::from(self.min_calls) {
            None
        } else if reached(self.failed, counts.failed) {
            Some(Cause::FailureRate)
        } else if reached(self.slow, counts.slow) {
            Some(Cause::SlowRate)
        } else {
            None
        }
    }

    /// Returns a lower bound on the further bad calls that are needed before a trip can be due,
    /// whatever else is recorded in the meantime.
    pub(crate) fn bad_calls_to_trip(&self, counts: Counts) -> u64 {
        let to_trip = |share: Option<u32>, bad: u64| {
            let Some(share) = share else { return u64::MAX };
            let (share, calls) = (u128::from(share), u128::from(counts.calls));
            let (bad, million) = (u128::from(bad), u128::from(MILLION));
            // Below the minimum of calls, the share is that of the minimum: good calls may fill it
            // up.
            let of_minimum = (share * u128::from(self.min_calls)).div_ceil(million).saturating_sub(bad);
            // The least d with (bad + d) * million >= share * (calls + d).
            let lacking = (share * calls).saturating_sub(bad * million);
            let of_all = if share >= million {
                if lacking == 0 { 0 } else { u128::MAX }
            } else {
                lacking.div_ceil(million - share)
            };
            u64::try_from(of_minimum.max(of_all).max(1)).unwrap_or(u64::MAX)
        };
        to_trip(self.failed, counts.failed).min(to_trip(self.slow, counts.slow))
    }
}

fn threshold(share: u32, calls: u64) -> u128 {
    u128::from(share) * u128::from(calls)
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_is_reached_by_the_fraction_it_was_written_as() {
        for calls in 1..=1000_u32 {
            for bad in [1, calls / 3, calls / 2, calls - 1, calls].into_iter().filter(|bad| (1..=calls).contains(bad)) {
                let share = millionths(f64::from(bad) / f64::from(calls));
                let rates = Rates { min_calls: 1, failed: Some(share), slow: None };
                let counts = |bad| Counts { calls: calls.into(), failed: u64::from(bad), slow: 0 };
                assert_eq!(rates.trip_cause(counts(bad)), Some(Cause::FailureRate), "{bad} of {calls}");
                assert_eq!(rates.trip_cause(counts(bad - 1)), None, "{} of {calls}, for {bad}", bad - 1);
            }
        }
        assert_eq!(
            ["0.29", "0.57", "0.58", "1"].map(|it| millionths(it.parse().unwrap())),
            [290_000, 570_000, 580_000, 1_000_000]
        );
        assert_eq!(millionths(1e-9), 1);
    }

    proptest! {
        /// No trip is due before the bound, whatever good calls are recorded.
        #[test]
        fn the_bound_on_bad_calls_is_never_too_late(
            share in 1_u32..=1_000_000, min_calls in 1_u32..50, calls in 0_u64..100, bad in 0_u64..100, good in 0_u64..50,
        ) {
            let rates = Rates { min_calls, failed: Some(share), slow: None };
            let counts = Counts { calls, failed: bad.min(calls), slow: 0 };
            let bound = rates.bad_calls_to_trip(counts);
            for more in 1..bound.min(200) {
                let counts = Counts { calls: calls + good + more, failed: counts.failed + more, slow: 0 };
                prop_assert_eq!(rates.trip_cause(counts), None, "{} more of {}", more, bound);
            }
        }
    }
}
