//! The generic cell rate algorithm, on one word.

mod params;
#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::time::Duration;

pub(crate) use params::Params;

use super::{
    drive::{Step, drive},
    sync::{AtomicU64, Ordering, Padded},
    time::{Nanos, nanos_of},
};

/// A unit of the core's time is an eighth of a nanosecond, so that the period of 700,000 a second is not truncated.
pub(crate) const UNITS_PER_NANO: u64 = 8;

const TAT_BITS: u32 = 61;
const TAT_MAX: u64 = (1 << TAT_BITS) - 1;
const FREED: u64 = 1 << TAT_BITS;
const VERSION_SHIFT: u32 = 62;

/// Places for slots that were given back out of order.
const CELLS: usize = 8;

/// A limiter: at most `burst` at once, one more every period.
///
/// ```text
/// word: [version: 2 | freed: 1 | theoretical arrival time (TAT): 61]
/// ```
///
/// The TAT is the time at which the bucket is full again: a call of cost n moves it from `max(TAT, now)` by n periods,
/// and may pass when it then is at most `burst` periods ahead. Each token taken so owns a slot of one period, by its end.
///
/// Invariants:
/// - G1 tokens admitted in `[a, b]` are at most `burst + (b - a) / period`: a token whose slot ends at v is admitted
///   between `v - burst * period` and `v - period`, and slots are a period apart.
/// - G2 the TAT goes back only when the last slot is returned, or with a change of the rate.
/// - G3 a refusal writes nothing.
/// - G4 a slot has one owner: it is returned to the TAT or to a cell by a swap, and taken from there by a swap.
///
/// A returned slot that is not the last goes to a cell, and a later call that would be refused or have to wait takes it
/// from there, for as long as it is worth something. `freed` says that there may be one. With all cells taken, or when
/// the debt of the slot has begun to be paid off, a returned slot is lost: the limiter is a token stricter for a moment,
/// never looser.
///
/// The parameters are in a table of four, by the word's version: a change of the rate publishes the next entry, and one
/// swap of the word makes it valid and converts the debt. No check sees old debt with a new rate.
///
/// Cost: admitted 2 loads (word, parameters) and 1 RMW; refused 2 loads; both with the one clock read of the caller.
/// The horizon is 9.1 years: there the time saturates, and the limiter admits everything.
#[derive(Debug)]
pub(crate) struct Gcra {
    word: Padded<AtomicU64>,
    params: Padded<[AtomicU64; 4]>,
    cells: [AtomicU64; CELLS],
}

/// Tokens taken for a call. Cancel it to give them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where the last of its tokens ends.
    end: u64,
    cost: u32,
    version: u64,
    period: u64,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now, but after this time, if nobody else comes.
    Wait(Duration),
    /// The cost is above the burst.
    Never,
}

#[derive(Clone, Copy)]
struct Word {
    version: u64,
    freed: bool,
    tat: u64,
}

impl Word {
    fn unpack(word: u64) -> Self {
        Self { version: word >> VERSION_SHIFT, freed: word & FREED != 0, tat: word & TAT_MAX }
    }

    fn pack(self) -> u64 {
        self.version << VERSION_SHIFT | if self.freed { FREED } else { 0 } | self.tat
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
        Self {
            word: Padded(AtomicU64::new(0)),
            params: Padded(std::array::from_fn(|_| AtomicU64::new(packed))),
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn params_of(&self, version: u64) -> Params {
        Params::unpack(self.params[version as usize].load(Ordering::Acquire))
    }

    pub(crate) fn params(&self) -> Params {
        self.params_of(Word::unpack(self.word.load(Ordering::Acquire)).version)
    }

    /// Takes `cost` tokens that are due within `max_wait`. Answers how long to wait until then.
    pub(crate) fn reserve(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<(Duration, Slot), Refusal> {
        let (now, max_wait) = (units(now), units_of(max_wait));
        let hot = drive(&self.word, |seen| {
            let word = Word::unpack(seen);
            match self.params_of(word.version).advance(word, now, cost, max_wait) {
                // Somebody gave a slot back that may be due earlier.
                Ok((_, wait, _)) if wait > 0 && word.freed && cost == 1 => Step::Keep(None),
                Err(Refusal::Wait(_)) if word.freed && cost == 1 => Step::Keep(None),
                Ok((next, wait, slot)) => Step::Write(next.pack(), Some(Ok((duration(wait), slot)))),
                Err(refusal) => Step::Keep(Some(Err(refusal))),
            }
        });
        hot.unwrap_or_else(|| match self.take_freed(now, max_wait) {
            Some(taken) => Ok(taken),
            None => drive(&self.word, |seen| {
                let word = Word::unpack(seen);
                match self.params_of(word.version).advance(word, now, cost, max_wait) {
                    Ok((next, wait, slot)) => Step::Write(next.pack(), Ok((duration(wait), slot))),
                    Err(refusal) => Step::Keep(Err(refusal)),
                }
            }),
        })
    }

    /// The same as [`reserve`](Self::reserve), without taking anything.
    pub(crate) fn peek(&self, now: Nanos, cost: u32) -> Result<(), Refusal> {
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        self.params_of(word.version).advance(word, units(now), cost, 0).map(drop)
    }

    /// Tokens there now, and the time until all are.
    pub(crate) fn available(&self, now: Nanos) -> (u32, Duration) {
        let (word, now) = (Word::unpack(self.word.load(Ordering::Acquire)), units(now));
        let params = self.params_of(word.version);
        let ahead = word.tat.saturating_sub(now);
        let left = params.tolerance().saturating_sub(ahead) / params.period;
        (left.min(u64::from(params.burst)) as u32, duration(ahead))
    }

    /// Gives tokens back that were not used: the request was never sent, or the wait for it was given up.
    ///
    /// The last slot goes back into the TAT, and takes freed ones before it along. Any other goes to a cell, where it is
    /// worth something until its debt begins to be paid off, a period before its end.
    pub(crate) fn cancel(&self, mut slot: Slot) {
        while self.return_last(slot) {
            let end = slot.end.saturating_sub(slot.period.saturating_mul(slot.cost.into()));
            match self.take_cell(|word| word.version == slot.version && word.tat == end) {
                Some(before) => slot = Slot { end: before.tat, cost: 1, ..slot },
                None => return,
            }
        }
        let mut tokens = 0..slot.cost.min(CELLS as u32);
        for cell in &self.cells {
            if cell.load(Ordering::Acquire) != 0 {
                continue;
            }
            let Some(token) = tokens.next() else { break };
            let end = slot.end - slot.period * u64::from(token);
            let packed = Word { version: slot.version, freed: true, tat: end }.pack();
            // Lost to another one's slot: try the next cell with the next token; a slot lost is a slot wasted.
            let _ = cell.compare_exchange(0, packed, Ordering::AcqRel, Ordering::Acquire);
        }
        self.hint(true);
    }

    fn return_last(&self, slot: Slot) -> bool {
        drive(&self.word, |seen| {
            let word = Word::unpack(seen);
            if word.version != slot.version || word.tat != slot.end {
                return Step::Keep(false);
            }
            let tat = slot.end.saturating_sub(slot.period.saturating_mul(u64::from(slot.cost)));
            Step::Write(Word { tat, ..word }.pack(), true)
        })
    }

    /// Takes a freed slot out of its cell.
    fn take_cell(&self, wanted: impl Fn(Word) -> bool) -> Option<Word> {
        self.cells.iter().find_map(|cell| {
            let packed = cell.load(Ordering::Acquire);
            let word = Word::unpack(packed);
            let taken = packed != 0
                && wanted(word)
                && cell.compare_exchange(packed, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
            taken.then_some(word)
        })
    }

    /// Takes the earliest slot in the cells that a call could still use.
    fn take_freed(&self, now: u64, max_wait: u64) -> Option<(Duration, Slot)> {
        // Cleared before the search: a slot that is freed meanwhile either is found by it, or finds the hint cleared and
        // sets it.
        self.hint(false);
        let version = Word::unpack(self.word.load(Ordering::Acquire)).version;
        let params = self.params_of(version);
        let (mut best, mut left) = (None, 0);
        for cell in &self.cells {
            let packed = cell.load(Ordering::Acquire);
            if packed == 0 {
                continue;
            }
            let word = Word::unpack(packed);
            // Worth something while a call that is admitted now would not begin after it.
            if word.version != version || word.tat < now.saturating_add(params.period) {
                let _ = cell.compare_exchange(packed, 0, Ordering::AcqRel, Ordering::Acquire);
                continue;
            }
            left += 1;
            if best.is_none_or(|(_, _, end)| word.tat < end) {
                best = Some((cell, packed, word.tat));
            }
        }
        let taken = best.and_then(|(cell, packed, end)| {
            let wait = end.saturating_sub(params.tolerance()).saturating_sub(now);
            let mine =
                wait <= max_wait && cell.compare_exchange(packed, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
            mine.then_some((duration(wait), Slot { end, cost: 1, version, period: params.period }))
        });
        if left > u32::from(taken.is_some()) {
            self.hint(true);
        }
        taken
    }

    /// Sets or clears the hint that there may be freed slots.
    fn hint(&self, freed: bool) {
        drive(&self.word, |seen| {
            let word = Word::unpack(seen);
            if word.freed == freed { Step::Keep(()) } else { Step::Write(Word { freed, ..word }.pack(), ()) }
        });
    }

    /// Changes the rate and the burst. The debt stays the same number of tokens. Slots that were reserved before keep
    /// their time; if they are cancelled later they are lost.
    ///
    /// Only one at a time: the caller sees to that.
    pub(crate) fn set(&self, params: Params, now: Nanos) {
        let now = units(now);
        let next = (Word::unpack(self.word.load(Ordering::Acquire)).version + 1) % 4;
        self.params[next as usize].store(params.pack(), Ordering::Release);
        drive(&self.word, |seen| {
            let word = Word::unpack(seen);
            let old = self.params_of(word.version);
            let debt = u128::from(word.tat.saturating_sub(now));
            let debt = debt * u128::from(params.period) / u128::from(old.period);
            let tat = u128::from(now).saturating_add(debt).min(u128::from(TAT_MAX)) as u64;
            let tat = if word.tat > now { tat } else { word.tat };
            Step::Write(Word { version: next, freed: word.freed, tat }.pack(), ())
        });
    }
}

impl Params {
    /// The pure step: the word after `cost` tokens are taken, how long they are to be waited for, and their slot.
    fn advance(self, word: Word, now: u64, cost: u32, max_wait: u64) -> Result<(Word, u64, Slot), Refusal> {
        if cost > self.burst {
            return Err(Refusal::Never);
        }
        let end = word.tat.max(now).saturating_add(self.period.saturating_mul(u64::from(cost))).min(TAT_MAX);
        let wait = end.saturating_sub(self.tolerance()).saturating_sub(now);
        if wait > max_wait {
            return Err(Refusal::Wait(duration(wait)));
        }
        let slot = Slot { end, cost, version: word.version, period: self.period };
        Ok((Word { tat: end, ..word }, wait, slot))
    }
}
