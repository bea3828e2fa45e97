//! The generic cell rate algorithm, on one word.

mod params;
mod returned_slots;
#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::time::Duration;

pub(crate) use params::Params;
use returned_slots::{CELLS, ReturnedSlots};

use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::{Nanos, nanos_of},
};

/// A unit of the core's time is an eighth of a nanosecond, so that the period of 700,000 a second is not truncated.
pub(crate) const UNITS_PER_NANO: u64 = 8;

const TAT_BITS: u32 = 61;
const TAT_MAX: u64 = (1 << TAT_BITS) - 1;
const RETURNED: u64 = 1 << TAT_BITS;
const VERSION_SHIFT: u32 = 62;
const VERSION_MASK: u64 = 3;

/// A limiter: at most `burst` at once, one more every period.
///
/// ```text
/// word: [version: 2 | returned: 1 | theoretical arrival time (TAT): 61]
/// ```
///
/// The TAT is the time at which the bucket is full again: a call of cost n moves it from `max(TAT, now)` by n periods,
/// and may pass when it then is at most `burst` periods ahead. Each token taken so owns a slot of one period, by its end.
///
/// Invariants:
/// - G1 tokens admitted in `[a, b]` are at most `burst + (b - a) / period`: a token whose slot ends at v is admitted
///   between `v - burst * period` and `v - period`, and slots are a period apart.
/// - G2 the TAT goes back only when the last slot is returned, or with a change of the rate.
/// - G3 a rejection writes nothing.
/// - G4 a slot has one owner: it is returned to the TAT or to a cell by a swap, and taken from there by a swap.
///
/// A returned slot that is not the last goes to a cell, and a later call that would be refused or have to wait takes it
/// from there, for as long as it is worth something. `returned` says that there may be one. With all cells taken, or when
/// the debt of the slot has begun to be paid off, a returned slot is lost: the limiter is a token stricter for a moment,
/// never looser. A call that costs more than one token does not look into the cells.
///
/// The parameters are in a table of four, by the word's version: a change of the rate publishes the next entry, and one
/// swap of the word makes it valid and converts the debt. No check sees old debt with a new rate. A slot remembers the
/// full number of its change, of which the version is the last two bits, so that it cannot be returned to a later rate
/// whose version is the same.
///
/// Cost: admitted 2 loads (word, parameters) and 1 RMW; refused 2 loads; both with the one clock read of the caller.
/// Who is refused while slots are returned reads the cells too. A slot that can be returned costs 1 load more.
/// The horizon is 9.1 years: there the time saturates, and the limiter admits everything.
#[derive(Debug)]
pub(crate) struct Gcra {
    word: Padded<AtomicU64>,
    table: Padded<ParamsTable>,
    returned: Padded<ReturnedSlots>,
}

/// Read by all, written by changes of the rate.
#[derive(Debug)]
struct ParamsTable {
    params: [AtomicU64; 4],
    /// Changes begun. The word's version belongs to this one, or to the one before while its swap is still to come.
    changes: AtomicU64,
}

/// Tokens taken for a call. Cancel it to give them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where the last of its tokens ends.
    end: u64,
    cost: u32,
    period: u64,
    /// Of the changes of the rate, the one under which it was taken.
    change: u64,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GcraRejection {
    /// Not now, but after this time, if nobody else comes.
    Wait(Duration),
    /// The cost is above the burst.
    Never,
}

/// A step of the word, and what it gives.
struct Taken {
    word: GcraWord,
    /// Until the tokens are due.
    wait: u64,
    period: u64,
}

#[derive(Clone, Copy)]
struct GcraWord {
    version: u64,
    returned: bool,
    tat: u64,
}

impl GcraWord {
    #[inline]
    fn unpack(word: u64) -> Self {
        Self { version: word >> VERSION_SHIFT, returned: word & RETURNED != 0, tat: word & TAT_MAX }
    }

    #[inline]
    fn pack(self) -> u64 {
        self.version << VERSION_SHIFT | if self.returned { RETURNED } else { 0 } | self.tat
    }
}

fn units(now: Nanos) -> u64 {
    now.get().saturating_mul(UNITS_PER_NANO).min(TAT_MAX)
}

fn units_of(duration: Duration) -> u64 {
    nanos_of(duration).saturating_mul(UNITS_PER_NANO)
}

/// Rounded up: after this long, it is time.
fn duration(units: u64) -> Duration {
    Duration::from_nanos(units.div_ceil(UNITS_PER_NANO))
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

    /// Takes `cost` tokens that are there now.
    #[inline]
    pub(crate) fn check(&self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if cost == 0 {
            return Ok(());
        }
        let now = units(now);
        // As `take`, of which only the answer is of interest.
        let fast = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            match self.params_of(word.version).advance(word, now, cost, 0) {
                Ok(taken) => Step::Write(taken.word.pack(), Some(Ok(()))),
                // Somebody gave a slot back that may be due earlier.
                Err(_) if word.returned && cost == 1 => Step::Keep(None),
                Err(rejection) => Step::Keep(Some(Err(rejection))),
            }
        });
        fast.unwrap_or_else(|| self.take_returned_or_next(now, 0).map(drop))
    }

    /// Takes `cost` tokens that are due within `max_wait`. Answers how long to wait until then.
    pub(crate) fn reserve(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<(Duration, Slot), GcraRejection> {
        // Before the word: what is seen there cannot belong to an earlier change than the one before this.
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
                // Somebody gave a slot back that may be due earlier.
                _ if word.returned && cost == 1 => Step::Keep(None),
                Ok(taken) => Step::Write(taken.word.pack(), Some(Ok(taken))),
                Err(rejection) => Step::Keep(Some(Err(rejection))),
            }
        });
        fast.unwrap_or_else(|| self.take_returned_or_next(now, max_wait))
    }

    /// Takes one token: the earliest in the cells, or else the next of all.
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
        let last = drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            match self.params_of(word.version).advance(word, now, 1, max_wait) {
                Ok(taken) => Step::Write(taken.word.pack(), Ok(taken)),
                Err(rejection) => Step::Keep(Err(rejection)),
            }
        });
        last.map_err(|rejection| match (rejection, returned_wait) {
            (GcraRejection::Wait(wait), Some(returned)) => GcraRejection::Wait(wait.min(duration(returned))),
            _ => rejection,
        })
    }

    /// The same as [`check`](Self::check), without taking anything.
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

    /// Tokens there now, and the time until all are. Slots in the cells are not counted.
    pub(crate) fn available(&self, now: Nanos) -> (u32, Duration) {
        let ((word, params), now) = (self.load(), units(now));
        let ahead = word.tat.saturating_sub(now);
        let left = params.tolerance().saturating_sub(ahead) / params.period;
        (left.min(u64::from(params.burst)) as u32, duration(ahead))
    }

    /// Gives tokens back that were not used: the request was never sent, or the wait for it was given up.
    ///
    /// The last slot goes back into the TAT, and takes returned ones before it along. Any other goes to a cell, where it is
    /// worth something until its debt begins to be paid off, a period before its end. Slots of an earlier rate are lost.
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
            // The rate was changed meanwhile, and its own clearing may have come too early for these.
            self.returned.clear(version);
        }
    }

    /// Whether the rate is still the one under which the slot was taken.
    fn is_current(&self, slot: Slot) -> bool {
        let word = GcraWord::unpack(self.word.load(Ordering::Acquire));
        self.is_of(slot, word)
    }

    fn is_of(&self, slot: Slot, seen: GcraWord) -> bool {
        // The word belongs to the slot's change or a later one, and to none that has not begun. With the same version
        // and less than four of them between, it is the same.
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

    /// Says that there may be returned slots.
    fn set_hint(&self) {
        // Written even where it is set: so either it comes before a concurrent `clear_hint`, which then sees the slot,
        // or it comes after and stands.
        drive(&self.word, |seen| Step::Write(GcraWord { returned: true, ..GcraWord::unpack(seen) }.pack(), ()));
    }

    /// Says that there are no returned slots, if that is so.
    fn clear_hint(&self) {
        drive(&self.word, |seen| Step::Write(GcraWord { returned: false, ..GcraWord::unpack(seen) }.pack(), ()));
        if !self.returned.is_empty() {
            self.set_hint();
        }
    }

    /// Changes the rate and the burst. The debt stays the same number of tokens. Slots that were reserved before keep
    /// their time; if they are cancelled later they are lost.
    ///
    /// Only one at a time: the caller sees to that.
    pub(crate) fn set(&self, params: Params, now: Nanos) {
        let now = units(now);
        let change = self.table.changes.load(Ordering::Acquire) + 1;
        let version = change & VERSION_MASK;
        self.returned.clear(version);
        self.table.params[version as usize].store(params.pack(), Ordering::Release);
        self.table.changes.store(change, Ordering::Release);
        drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            let old = self.params_of(word.version);
            let debt = u128::from(word.tat.saturating_sub(now)) * u128::from(params.period);
            // Rounded up: to the strict side.
            let debt = debt.div_ceil(u128::from(old.period));
            let tat = if debt == 0 { word.tat } else { (u128::from(now) + debt).min(TAT_MAX.into()) as u64 };
            Step::Write(GcraWord { version, returned: word.returned, tat }.pack(), ())
        });
    }
}

impl Slot {
    /// Where the first of its tokens begins.
    fn start(self) -> u64 {
        self.end.saturating_sub(self.period.saturating_mul(self.cost.into()))
    }
}

impl Params {
    /// The pure step: the word after `cost` tokens are taken, and how long they are to be waited for.
    #[inline]
    fn advance(self, word: GcraWord, now: u64, cost: u32, max_wait: u64) -> Result<Taken, GcraRejection> {
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

    /// How long a slot with this end is to be waited for.
    #[inline]
    fn wait(self, end: u64, now: u64) -> u64 {
        end.saturating_sub(self.tolerance()).saturating_sub(now)
    }

    /// The first end of a slot that a call admitted now may own.
    fn usable_from(self, now: u64) -> u64 {
        now.saturating_add(self.period)
    }
}
