//! The generic cell rate algorithm (GCRA) on one word.

mod exclusive;
mod params;
mod returned;
#[cfg(all(test, not(rampart_loom)))]
mod tests;
mod word;

use std::time::Duration;

pub(crate) use exclusive::{LATENESS, Line};
pub(crate) use params::{Params, ParamsError};
pub(crate) use returned::Returned;
use returned::Span;
use word::{GcraWord, VERSION_MASK, duration, units};

use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::{CompactDuration, Nanos},
};

/// A rate limiter: a burst of tokens, and one more every period.
///
/// ```text
/// word: [version: 2 | contended: 1 | theoretical arrival time (TAT): 61]
/// ```
///
/// The TAT is the time at which the bucket is full again: a call of cost n moves it from `max(TAT,
/// now)` by n periods, and is admitted if it is then at most `burst` periods ahead. Each token
/// taken owns a period of the timeline.
///
/// Invariants:
/// - gcra.I1 at most `burst + (b - a) / period` tokens are admitted in `[a, b]`: a token admitted
///   at t owns one period of time, in pieces or not, between t and `t + burst * period`, and no two
///   tokens own the same time.
/// - gcra.I2 the TAT moves back only when the last time taken is returned, or with a change of the
///   rate.
/// - gcra.I3 a rejection writes nothing.
/// - gcra.I4 time has one owner: a call that is cancelled returns it to the TAT by a swap or, under
///   the lock, to [`Returned`], from where another call takes it.
/// - gcra.I5 while the `contended` bit is set, the word is written under the lock only.
///
/// The `contended` bit says that there is [`Returned`] time or a queue, both of which the caller's
/// lock guards; a call that sees it goes there. A call that waits owns no time, so it leaves
/// nothing behind.
///
/// The parameters are in a table of four, indexed by the word's version: a change of the rate
/// publishes the next entry, and one swap of the word switches to it and converts the debt. No
/// check sees an old debt with a new rate. A slot carries the full number of its change, whose last
/// two bits are the version.
///
/// Cost: an admission is 2 loads (word, parameters) and 1 RMW, a rejection 2 loads, both with the
/// one clock read of the caller. A slot that can be returned costs 1 load more. The horizon is 9.1
/// years: there the time saturates, and the limiter admits everything.
#[derive(Debug)]
pub(crate) struct Gcra {
    word: Padded<AtomicU64>,
    table: Padded<ParamsTable>,
}

/// The parameters of the last changes of the rate. Read by every call, written by changes only.
#[derive(Debug)]
struct ParamsTable {
    params: [AtomicU64; 4],
    /// The number of changes begun. The word's version is that of the last one, or of the one
    /// before until its swap.
    changes: AtomicU64,
}

/// The tokens taken for a call; [cancelling](Gcra::cancel) the slot returns them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The last piece of its time; the only one, unless it was taken from returned time.
    span: Span,
    earlier: Option<Box<[Span]>>,
    /// The number of the change of the rate under which it was taken.
    change: u64,
}

/// The reason for a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GcraRejection {
    /// Admission is possible after this time, unless other callers come first.
    Wait(CompactDuration),
    /// The cost is above the burst.
    Never,
}

impl GcraRejection {
    /// The time after which the call would conform, if it ever can.
    #[inline]
    pub(crate) fn retry_after(self) -> Option<CompactDuration> {
        match self {
            Self::Wait(wait) => Some(wait),
            Self::Never => None,
        }
    }
}

/// The reason why the word alone does not admit a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Rejected(GcraRejection),
    /// There is returned time or a queue.
    Contended,
}

impl Gcra {
    pub(crate) fn new(params: Params) -> Self {
        let packed = params.pack();
        let params = std::array::from_fn(|_| AtomicU64::new(packed));
        Self { word: Padded(AtomicU64::new(0)), table: Padded(ParamsTable { params, changes: AtomicU64::new(0) }) }
    }

    #[inline]
    fn params_of(&self, version: u64) -> Params {
        Params::unpack(self.table.params[version as usize].load(Ordering::Acquire))
    }

    fn load(&self) -> (GcraWord, Params) {
        let word = GcraWord::unpack(self.word.load(Ordering::Acquire));
        (word, self.params_of(word.version))
    }

    pub(crate) fn params(&self) -> Params {
        self.load().1
    }

    #[inline(always)]
    fn step(&self, now: Nanos, cost: u32) -> Result<(GcraWord, Params), Denied> {
        let now = units(now);
        drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            if word.contended {
                return Step::Keep(Err(Denied::Contended));
            }
            let params = self.params_of(word.version);
            match params.advance(word.tat, now, cost) {
                Ok(tat) => {
                    let word = GcraWord { tat, ..word };
                    Step::Write(word.pack(), Ok((word, params)))
                }
                Err(rejection) => Step::Keep(Err(Denied::Rejected(rejection))),
            }
        })
    }

    /// Takes `cost` tokens that are available now, irrevocably.
    #[inline(always)]
    pub(crate) fn check(&self, now: Nanos, cost: u32) -> Result<(), Denied> {
        self.step(now, cost).map(drop)
    }

    /// Takes `cost` tokens that are available now.
    #[inline]
    pub(crate) fn take(&self, now: Nanos, cost: u32) -> Result<Slot, Denied> {
        // Loaded before the word, which then cannot be of a change earlier than the one before
        // this.
        let begun = self.table.changes.load(Ordering::Acquire);
        let (word, params) = self.step(now, cost)?;
        let span = Span { start: params.start(word.tat, cost), end: word.tat };
        let earliest = begun.saturating_sub(1);
        let change = earliest + (word.version.wrapping_sub(earliest) & VERSION_MASK);
        Ok(Slot { span, earlier: None, change })
    }

    /// As [`check`](Self::check), without taking tokens.
    pub(crate) fn peek(&self, now: Nanos, cost: u32) -> Result<(), Denied> {
        let (word, params) = self.load();
        if word.contended {
            return Err(Denied::Contended);
        }
        params.advance(word.tat, units(now), cost).map(drop).map_err(Denied::Rejected)
    }

    /// Returns tokens that were not used, if they are the last ones taken. Otherwise the slot must
    /// be returned [under the lock](Self::cancel_exclusive).
    pub(crate) fn cancel(&self, slot: Slot) -> Result<(), Slot> {
        if slot.earlier.is_some() {
            return Err(slot);
        }
        let returned = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            if word.contended || word.tat != slot.span.end || !self.is_of(&slot, word) {
                return Step::Keep(false);
            }
            Step::Write(GcraWord { tat: slot.span.start, ..word }.pack(), true)
        });
        if returned { Ok(()) } else { Err(slot) }
    }

    fn is_of(&self, slot: &Slot, seen: GcraWord) -> bool {
        // The word is of the slot's change or of a later one that has begun. If the versions are
        // equal and fewer than four changes have begun since, the change is the same.
        let begun = self.table.changes.load(Ordering::Acquire);
        seen.version == slot.change & VERSION_MASK && begun < slot.change + 4
    }
}

impl Slot {
    /// Whether it owns no time.
    pub(crate) fn is_empty(&self) -> bool {
        self.earlier.is_none() && self.span.start == self.span.end
    }

    /// Whether its time still lies in the future, but for `grace`.
    pub(crate) fn is_fresh(&self, now: Nanos, grace: Duration) -> bool {
        let first = self.earlier.as_ref().and_then(|spans| spans.first()).unwrap_or(&self.span);
        first.start.saturating_add(word::units_of(grace)) >= units(now)
    }
}
