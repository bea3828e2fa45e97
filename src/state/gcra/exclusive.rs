//! What the holder of the limiter's lock may do: use returned time, and admit calls from a queue.

use std::time::Duration;

use super::{
    Gcra, GcraRejection, Params, Returned, Slot, Span, duration,
    word::{GcraWord, TAT_MAX, VERSION_MASK, units, units_of},
};
use crate::state::{
    atomics::Ordering,
    drive::{Step, drive},
    time::{CompactDuration, Nanos},
};

/// Tokens that were taken under the lock.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) slot: Slot,
    /// When they were due.
    pub(crate) due: Nanos,
}

/// How tokens are taken: this much returned time, and the rest of them after the TAT.
struct Plan {
    reused: u64,
    start: u64,
    end: u64,
    rest: bool,
}

/// The calls in the queue, as those outside of it see them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// The tokens that all of them cost.
    pub(crate) tokens: u64,
    /// The cost of the first.
    pub(crate) first: u32,
}

const FIRST_BITS: u32 = 26;

impl Line {
    /// In one word. A number of tokens that does not fit counts as the largest that does.
    pub(crate) fn pack(self) -> u64 {
        self.tokens.min(u64::MAX >> FIRST_BITS) << FIRST_BITS | u64::from(self.first)
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self { tokens: word >> FIRST_BITS, first: (word & ((1 << FIRST_BITS) - 1)) as u32 }
    }
}

/// A call that waits is admitted as of the time when it was due, but at most this long ago. So
/// timers of a millisecond keep up any rate, and calls that were late by more do not all start at
/// once.
pub(crate) const LATENESS: Duration = Duration::from_millis(10);

impl Gcra {
    /// Sets or clears the `contended` bit.
    pub(crate) fn set_contended(&self, contended: bool) {
        drive(&self.word, |seen| {
            let word = GcraWord::unpack(seen);
            if word.contended == contended {
                Step::Keep(())
            } else {
                Step::Write(GcraWord { contended, ..word }.pack(), ())
            }
        });
    }

    fn store_tat(&self, tat: u64) {
        drive(&self.word, |seen| Step::Write(GcraWord { tat, ..GcraWord::unpack(seen) }.pack(), ()));
    }

    /// Takes `cost` tokens that are available now, of returned time first, for a call that has
    /// waited since `arrived`. The `contended` bit must be set.
    pub(crate) fn take_exclusive(
        &self,
        returned: &mut Returned,
        now: Nanos,
        arrived: Nanos,
        cost: u32,
    ) -> Result<Taken, GcraRejection> {
        let Plan { reused, start, end, rest } = self.plan(returned, now, arrived, cost)?;
        let mut spans = returned.take(reused);
        if rest {
            self.store_tat(end);
            spans.push(Span { start, end });
        }
        let span = spans.pop().unwrap_or(Span { start: end, end });
        let (now, arrived) = (units(now), units(arrived));
        let due = match spans.is_empty() {
            true => span.end.saturating_sub(self.params().tolerance()).max(arrived).min(now),
            false => now,
        };
        let slot = Slot {
            span,
            earlier: (!spans.is_empty()).then(|| spans.into_boxed_slice()),
            change: self.table.changes.load(Ordering::Acquire),
        };
        Ok(Taken { slot, due: Nanos::new(due / super::word::UNITS_PER_NANO) })
    }

    /// As [`take_exclusive`](Self::take_exclusive), without taking tokens.
    pub(crate) fn peek_exclusive(&self, returned: &mut Returned, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        self.plan(returned, now, now, cost).map(drop)
    }

    fn plan(&self, returned: &mut Returned, now: Nanos, arrived: Nanos, cost: u32) -> Result<Plan, GcraRejection> {
        let (word, params) = self.load();
        if cost > params.burst {
            return Err(GcraRejection::Never);
        }
        returned.prune(now);
        let (now, arrived) = (units(now), units(arrived));
        let need = params.period.saturating_mul(cost.into());
        let reused = returned.usable(now.saturating_add(params.tolerance()), need);
        let start = word.tat.max(now.saturating_sub(units_of(LATENESS)).max(arrived).min(now));
        let rest = need - reused;
        let end = start.saturating_add(rest).min(TAT_MAX);
        match params.wait(end, now) {
            wait if wait > 0 && rest > 0 => Err(GcraRejection::Wait(duration(wait))),
            _ => Ok(Plan { reused, start, end, rest: rest > 0 }),
        }
    }

    /// Returns tokens that were not used, because the request was never sent. Time that has passed
    /// is lost. The `contended` bit must be set.
    pub(crate) fn cancel_exclusive(&self, returned: &mut Returned, slot: Slot) {
        for span in slot.earlier.iter().flatten().chain([&slot.span]) {
            if let Some(span) = returned.moved(*span, slot.change) {
                returned.put(span);
            }
        }
        let tat = self.load().0.tat;
        let rewound = returned.rewind(tat);
        if rewound != tat {
            self.store_tat(rewound);
        }
    }

    /// The wait of a call of this cost that would join the queue. Without the lock there is no
    /// `returned`, and the wait may be too long for a moment. With it, `returned` must be pruned.
    pub(crate) fn wait_behind(
        &self,
        line: Line,
        returned: Option<&Returned>,
        now: Nanos,
        cost: u32,
    ) -> Result<CompactDuration, GcraRejection> {
        let (word, params) = self.load();
        if cost > params.burst {
            return Err(GcraRejection::Never);
        }
        let now = units(now);
        let debt = Self::debt(word, params, line, returned, now);
        let ahead = debt.saturating_add(params.period.saturating_mul(cost.into()));
        Ok(duration(ahead.saturating_sub(params.tolerance())))
    }

    fn debt(word: GcraWord, params: Params, line: Line, returned: Option<&Returned>, now: u64) -> u64 {
        if word.tat >= TAT_MAX {
            return 0;
        }
        let end = params.end(word.tat.max(now), line.tokens);
        let reusable = returned.map_or(0, Returned::total);
        end.saturating_sub(now).saturating_sub(reusable)
    }

    /// How long the first call of the queue has been due.
    pub(crate) fn overdue(&self, line: Line, now: Nanos) -> Duration {
        let (word, params) = self.load();
        let due = params.end(word.tat, line.first.into()).saturating_sub(params.tolerance());
        duration(units(now).saturating_sub(due)).get()
    }

    /// The tokens available now that no call waits for, and the time until the bucket is full.
    pub(crate) fn available(&self, line: Line, returned: &mut Returned, now: Nanos) -> (u32, Duration) {
        returned.prune(now);
        let ((word, params), now) = (self.load(), units(now));
        let debt = Self::debt(word, params, line, Some(returned), now);
        let left = params.tolerance().saturating_sub(debt) / params.period;
        (left.min(u64::from(params.burst)) as u32, duration(debt).get())
    }

    /// Changes the rate and the burst. The debt and the returned time stay the same number of
    /// tokens. The `contended` bit must be set.
    pub(crate) fn set(&self, returned: &mut Returned, params: Params, now: Nanos) {
        let now = units(now);
        let number = self.table.changes.load(Ordering::Acquire) + 1;
        let version = number & VERSION_MASK;
        self.table.params[version as usize].store(params.pack(), Ordering::Release);
        self.table.changes.store(number, Ordering::Release);
        let (word, old) = self.load();
        let tat = returned.change(number, now, (old.period, params.period), word.tat).min(TAT_MAX);
        drive(&self.word, |_| Step::Write(GcraWord { version, tat, ..word }.pack(), ()));
    }
}
