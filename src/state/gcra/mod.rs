//! The generic cell rate algorithm (GCRA) on one word.

mod params;
mod returned_slots;
#[cfg(all(test, not(rampart_loom)))]
mod tests;
mod word;

use std::time::Duration;

pub(crate) use params::Params;
use returned_slots::{CELLS, ReturnedSlots};
use word::{GcraWord, Taken, VERSION_MASK, duration, units, units_of};

use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::Nanos,
};

/// A rate limiter: a burst of tokens, and one more every period.
///
/// ```text
/// word: [version: 2 | returned: 1 | theoretical arrival time (TAT): 61]
/// ```
///
/// The TAT is the time at which the bucket is full again: a call of cost n moves it from `max(TAT,
/// now)` by n periods, and is admitted if it is then at most `burst` periods ahead. Each token
/// taken owns a slot of one period on the timeline, identified by its end.
///
/// Invariants:
/// - gcra.I1 at most `burst + (b - a) / period` tokens are admitted in `[a, b]`: a token whose slot
///   ends at v is admitted between `v - burst * period` and `v - period`, and slots are a period
///   apart.
/// - gcra.I2 the TAT moves back only when the last slot is returned, or with a change of the rate.
/// - gcra.I3 a rejection writes nothing.
/// - gcra.I4 a slot has one owner: it is returned to the TAT or to a cell by a swap, and taken from
///   there by a swap.
///
/// A returned slot that is not the last goes to a cell, where a later call that would be rejected
/// or have to wait takes it, for as long as it is usable. The `returned` bit says that there may be
/// such slots. A returned slot is lost if all cells are taken or its period has begun: the limiter
/// is then stricter by a token for a moment, never looser. A call that costs more than one token
/// does not look into the cells.
///
/// The parameters are in a table of four, indexed by the word's version: a change of the rate
/// publishes the next entry, and one swap of the word switches to it and converts the debt. No
/// check sees an old debt with a new rate. A slot carries the full number of its change, whose last
/// two bits are the version, so that it cannot be returned to a later rate with the same version.
///
/// Cost: an admission is 2 loads (word, parameters) and 1 RMW, a rejection 2 loads, both with the
/// one clock read of the caller. A rejection while slots are returned reads the cells too. A slot
/// that can be returned costs 1 load more. The horizon is 9.1 years: there the time saturates, and
/// the limiter admits everything.
#[derive(Debug)]
pub(crate) struct Gcra {
    word: Padded<AtomicU64>,
    table: Padded<ParamsTable>,
    returned: Padded<ReturnedSlots>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The end of the last token.
    end: u64,
    cost: u32,
    period: u64,
    /// The number of the change of the rate under which it was taken.
    change: u64,
}

/// The reason for a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GcraRejection {
    /// Admission is possible after this time, unless other callers come first.
    Wait(Duration),
    /// The cost is above the burst.
    Never,
}

impl Gcra {
    pub(crate) fn new(params: Params) -> Self {
        let packed = params.pack();
        let params = std::array::from_fn(|_| AtomicU64::new(packed));
        Self {
            word: Padded(AtomicU64::new(0)),
            table: Padded(ParamsTable { params, changes: AtomicU64::new(0) }),
            returned: Padded(ReturnedSlots::new()),
        }
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

    /// Takes `cost` tokens that are available now.
    #[inline]
    pub(crate) fn check(&self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if cost == 0 {
            return Ok(());
        }
        let now = units(now);
        // As `take`, without its slot.
        let fast = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            match self.params_of(word.version).advance(word, now, cost, 0) {
                Ok(taken) => Step::Write(taken.word.pack(), Some(Ok(()))),
                // A returned slot may be due earlier.
                Err(_) if word.returned && cost == 1 => Step::Keep(None),
                Err(rejection) => Step::Keep(Some(Err(rejection))),
            }
        });
        fast.unwrap_or_else(|| self.take_returned_or_next(now, 0).map(drop))
    }

    /// Takes `cost` tokens that are due within `max_wait`. Returns the wait until then.
    pub(crate) fn reserve(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<(Duration, Slot), GcraRejection> {
        // Loaded before the word, which then cannot be of a change earlier than the one before
        // this.
        let begun = self.table.changes.load(Ordering::Acquire);
        if cost == 0 {
            return Ok((Duration::ZERO, Slot { end: 0, cost, period: 0, change: begun }));
        }
        let Taken { word, wait, period } = self.take(units(now), cost, units_of(max_wait))?;
        let earliest = begun.saturating_sub(1);
        let change = earliest + (word.version.wrapping_sub(earliest) & VERSION_MASK);
        Ok((duration(wait), Slot { end: word.tat, cost, period, change }))
    }

    fn take(&self, now: u64, cost: u32, max_wait: u64) -> Result<Taken, GcraRejection> {
        let fast = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            match self.params_of(word.version).advance(word, now, cost, max_wait) {
                Ok(taken) if taken.wait == 0 => Step::Write(taken.word.pack(), Some(Ok(taken))),
                Err(GcraRejection::Never) => Step::Keep(Some(Err(GcraRejection::Never))),
                // A returned slot may be due earlier.
                _ if word.returned && cost == 1 => Step::Keep(None),
                Ok(taken) => Step::Write(taken.word.pack(), Some(Ok(taken))),
                Err(rejection) => Step::Keep(Some(Err(rejection))),
            }
        });
        fast.unwrap_or_else(|| self.take_returned_or_next(now, max_wait))
    }

    /// Takes one token: the earliest in the cells, or otherwise the next of the TAT.
    #[cold]
    fn take_returned_or_next(&self, now: u64, max_wait: u64) -> Result<Taken, GcraRejection> {
        let (word, params) = self.load();
        let found = self.returned.earliest(word.version, params.usable_from(now));
        let returned_wait = found.as_ref().map(|found| params.wait(found.end, now));
        if let (Some(found), Some(wait)) = (&found, returned_wait) {
            if wait <= max_wait && self.returned.take(found) {
                return Ok(Taken { word: GcraWord { tat: found.end, ..word }, wait, period: params.period });
            }
        } else if self.returned.is_empty() {
            self.clear_hint();
        }
        let next = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            match self.params_of(word.version).advance(word, now, 1, max_wait) {
                Ok(taken) => Step::Write(taken.word.pack(), Ok(taken)),
                Err(rejection) => Step::Keep(Err(rejection)),
            }
        });
        next.map_err(|rejection| match (rejection, returned_wait) {
            (GcraRejection::Wait(wait), Some(returned)) => GcraRejection::Wait(wait.min(duration(returned))),
            _ => rejection,
        })
    }

    /// As [`check`](Self::check), without taking tokens.
    pub(crate) fn peek(&self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if cost == 0 {
            return Ok(());
        }
        let now = units(now);
        let (word, params) = self.load();
        let Err(rejection) = params.advance(word, now, cost, 0) else { return Ok(()) };
        if !word.returned || cost > 1 {
            return Err(rejection);
        }
        let returned = self.returned.earliest(word.version, params.usable_from(now));
        match (rejection, returned.map(|found| params.wait(found.end, now))) {
            (_, Some(0)) => Ok(()),
            (GcraRejection::Wait(wait), Some(returned)) => Err(GcraRejection::Wait(wait.min(duration(returned)))),
            _ => Err(rejection),
        }
    }

    /// The tokens available now, and the time until the bucket is full. Slots in the cells are not
    /// counted.
    pub(crate) fn available(&self, now: Nanos) -> (u32, Duration) {
        let ((word, params), now) = (self.load(), units(now));
        let ahead = word.tat.saturating_sub(now);
        let left = params.tolerance().saturating_sub(ahead) / params.period;
        (left.min(u64::from(params.burst)) as u32, duration(ahead))
    }

    /// Returns tokens that were not used, because the request was never sent or its wait was
    /// cancelled.
    ///
    /// The last slot is returned to the TAT, along with returned slots right before it. Any other
    /// goes to a cell, where it is usable until its period begins, a period before its end. Slots
    /// of an earlier rate are lost.
    pub(crate) fn cancel(&self, mut slot: Slot) {
        let version = slot.change & VERSION_MASK;
        while slot.cost > 0 && self.return_last(slot) {
            slot.end = slot.start();
            slot.cost = u32::from(self.returned.take_end(version, slot.end));
        }
        if slot.cost == 0 || !self.is_current(slot) {
            return;
        }
        let tokens = 0..u64::from(slot.cost.min(CELLS as u32));
        self.returned.put(version, tokens.map(|token| slot.end.saturating_sub(slot.period * token)));
        if self.is_current(slot) {
            self.set_hint();
        } else {
            // The rate has changed since, and may have cleared the cells before these slots were
            // there.
            self.returned.clear(version);
        }
    }

    /// Whether the rate is still the one under which the slot was taken.
    fn is_current(&self, slot: Slot) -> bool {
        let word = GcraWord::unpack(self.word.load(Ordering::Acquire));
        self.is_of(slot, word)
    }

    fn is_of(&self, slot: Slot, seen: GcraWord) -> bool {
        // The word is of the slot's change or of a later one that has begun. If the versions are
        // equal and fewer than four changes have begun since, the change is the same.
        let begun = self.table.changes.load(Ordering::Acquire);
        seen.version == slot.change & VERSION_MASK && begun < slot.change + 4
    }

    fn return_last(&self, slot: Slot) -> bool {
        drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            if word.tat != slot.end || !self.is_of(slot, word) {
                return Step::Keep(false);
            }
            Step::Write(GcraWord { tat: slot.start(), ..word }.pack(), true)
        })
    }

    /// Sets the `returned` bit: there may be returned slots.
    fn set_hint(&self) {
        // Written even if it is set: either this comes before a concurrent `clear_hint`, which then
        // sees the slot, or after it and stands.
        drive(&self.word, |seen| Step::Write(GcraWord { returned: true, ..GcraWord::unpack(seen) }.pack(), ()));
    }

    /// Clears the `returned` bit, unless there are returned slots.
    fn clear_hint(&self) {
        drive(&self.word, |seen| Step::Write(GcraWord { returned: false, ..GcraWord::unpack(seen) }.pack(), ()));
        if !self.returned.is_empty() {
            self.set_hint();
        }
    }

    /// Changes the rate and the burst. The debt stays the same number of tokens. Slots reserved
    /// before keep their times; if they are cancelled later they are lost.
    ///
    /// The caller ensures that there is one change at a time.
    pub(crate) fn set(&self, params: Params, now: Nanos) {
        let now = units(now);
        let change = self.table.changes.load(Ordering::Acquire) + 1;
        let version = change & VERSION_MASK;
        self.returned.clear(version);
        self.table.params[version as usize].store(params.pack(), Ordering::Release);
        self.table.changes.store(change, Ordering::Release);
        drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            let tat = params.convert_debt(word.tat, now, self.params_of(word.version));
            Step::Write(GcraWord { version, tat, ..word }.pack(), ())
        });
    }
}

impl Slot {
    /// The beginning of the first token.
    fn start(self) -> u64 {
        self.end.saturating_sub(self.period.saturating_mul(self.cost.into()))
    }
}
