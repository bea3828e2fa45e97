//! The packed word of a limiter, and the pure steps on it.

use std::time::Duration;

use super::{GcraRejection, Params};
use crate::state::time::{CompactDuration, Nanos, nanos_of};

/// Time is counted in eighths of a nanosecond, so that the period of 700,000 per second is not
/// truncated.
pub(super) const UNITS_PER_NANO: u64 = 8;

const TAT_BITS: u32 = 61;
pub(super) const TAT_MAX: u64 = (1 << TAT_BITS) - 1;
const CONTENDED: u64 = 1 << TAT_BITS;
const VERSION_SHIFT: u32 = 62;
pub(super) const VERSION_MASK: u64 = 3;

/// The state of a limiter: `[version: 2 | contended: 1 | TAT: 61]`, with the TAT in units.
#[derive(Clone, Copy)]
pub(super) struct GcraWord {
    pub(super) version: u64,
    pub(super) contended: bool,
    pub(super) tat: u64,
}

impl GcraWord {
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self { version: word >> VERSION_SHIFT, contended: word & CONTENDED != 0, tat: word & TAT_MAX }
    }

    #[inline]
    pub(super) fn pack(self) -> u64 {
        self.version << VERSION_SHIFT | if self.contended { CONTENDED } else { 0 } | self.tat
    }
}

#[inline]
pub(super) fn units(now: Nanos) -> u64 {
    if now.get() > TAT_MAX / UNITS_PER_NANO { horizon() } else { now.get() * UNITS_PER_NANO }
}

// A call rather than a constant, which would be selected without a branch: one more step between
// the clock and the decision.
#[cold]
#[inline(never)]
fn horizon() -> u64 {
    TAT_MAX
}

pub(crate) fn units_of(duration: Duration) -> u64 {
    nanos_of(duration).saturating_mul(UNITS_PER_NANO)
}

/// Rounded up, so that the time has passed after it.
#[inline]
pub(super) fn duration(units: u64) -> CompactDuration {
    CompactDuration::from_nanos(units.div_ceil(UNITS_PER_NANO))
}

impl Params {
    /// The pure step: the TAT after `cost` tokens are taken, if they are due.
    #[inline]
    pub(super) fn advance(self, tat: u64, now: u64, cost: u32) -> Result<u64, GcraRejection> {
        if cost > self.burst {
            return Err(GcraRejection::Never);
        }
        // No sum overflows: `cost` tokens take no longer than the burst. The end is not that of
        // `max(tat, now)`: with a full bucket the tokens are due anyway, and otherwise the
        // processor adds this up while it waits for the clock.
        let taken = self.period * u64::from(cost);
        let (end, latest) = ((tat + taken).min(TAT_MAX), now + self.tolerance());
        if end > latest {
            return Err(GcraRejection::Wait(duration(end - latest)));
        }
        Ok((tat.max(now) + taken).min(TAT_MAX))
    }

    /// The end of `cost` tokens that begin at `start`.
    #[inline]
    pub(super) fn end(self, start: u64, cost: u64) -> u64 {
        start.saturating_add(self.period.saturating_mul(cost)).min(TAT_MAX)
    }

    /// The start of `cost` tokens with this end.
    #[inline]
    pub(super) fn start(self, end: u64, cost: u32) -> u64 {
        end.saturating_sub(self.period.saturating_mul(cost.into()))
    }

    /// The wait until tokens with this end are due.
    #[inline]
    pub(super) fn wait(self, end: u64, now: u64) -> u64 {
        end.saturating_sub(self.tolerance()).saturating_sub(now)
    }
}
