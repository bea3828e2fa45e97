//! The packed word of a limiter, and the pure steps on it.

use std::time::Duration;

use super::{GcraRejection, Params};
use crate::state::time::{Nanos, nanos_of};

/// Time is counted in eighths of a nanosecond, so that the period of 700,000 per second is not
/// truncated.
pub(super) const UNITS_PER_NANO: u64 = 8;

const TAT_BITS: u32 = 61;
const TAT_MAX: u64 = (1 << TAT_BITS) - 1;
const RETURNED: u64 = 1 << TAT_BITS;
const VERSION_SHIFT: u32 = 62;
pub(super) const VERSION_MASK: u64 = 3;

/// The state of a limiter: `[version: 2 | returned: 1 | TAT: 61]`, with the TAT in units.
#[derive(Clone, Copy)]
pub(super) struct GcraWord {
    pub(super) version: u64,
    pub(super) returned: bool,
    pub(super) tat: u64,
}

impl GcraWord {
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self { version: word >> VERSION_SHIFT, returned: word & RETURNED != 0, tat: word & TAT_MAX }
    }

    #[inline]
    pub(super) fn pack(self) -> u64 {
        self.version << VERSION_SHIFT | if self.returned { RETURNED } else { 0 } | self.tat
    }
}

/// The result of a step that takes tokens.
pub(super) struct Taken {
    pub(super) word: GcraWord,
    /// The time until the tokens are due.
    pub(super) wait: u64,
    pub(super) period: u64,
}

pub(super) fn units(now: Nanos) -> u64 {
    now.get().saturating_mul(UNITS_PER_NANO).min(TAT_MAX)
}

pub(super) fn units_of(duration: Duration) -> u64 {
    nanos_of(duration).saturating_mul(UNITS_PER_NANO)
}

/// Rounded up, so that the time has passed after it.
pub(super) fn duration(units: u64) -> Duration {
    Duration::from_nanos(units.div_ceil(UNITS_PER_NANO))
}

impl Params {
    /// The pure step: the word after `cost` tokens are taken, and the wait until they are due.
    #[inline]
    pub(super) fn advance(self, word: GcraWord, now: u64, cost: u32, max_wait: u64) -> Result<Taken, GcraRejection> {
        if cost > self.burst {
            return Err(GcraRejection::Never);
        }
        let end = word.tat.max(now).saturating_add(self.period.saturating_mul(u64::from(cost))).min(TAT_MAX);
        let wait = self.wait(end, now);
        if wait > max_wait {
            return Err(GcraRejection::Wait(duration(wait)));
        }
        Ok(Taken { word: GcraWord { tat: end, ..word }, wait, period: self.period })
    }

    /// The wait until a slot with this end is due.
    #[inline]
    pub(super) fn wait(self, end: u64, now: u64) -> u64 {
        end.saturating_sub(self.tolerance()).saturating_sub(now)
    }

    /// The earliest end of a slot that a call admitted now may own.
    pub(super) fn usable_from(self, now: u64) -> u64 {
        now.saturating_add(self.period)
    }

    /// The TAT under these parameters with the same debt, in tokens, as under the `old` ones.
    pub(super) fn convert_debt(self, tat: u64, now: u64, old: Self) -> u64 {
        let debt = u128::from(tat.saturating_sub(now)) * u128::from(self.period);
        // Rounded up, to the strict side.
        let debt = debt.div_ceil(u128::from(old.period));
        if debt == 0 { tat } else { (u128::from(now) + debt).min(TAT_MAX.into()) as u64 }
    }
}
