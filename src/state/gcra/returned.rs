use std::collections::{BTreeMap, VecDeque};

use super::word::units;
use crate::state::time::Nanos;

/// A stretch of the timeline, in units, without its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The time that cancelled calls have returned, and the changes of the rate since they took it.
///
/// A lock of the caller guards it.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    /// Disjoint spans before the arrival time, by start. Adjacent ones are merged, so there are
    /// never more than calls that still hold time, plus one.
    free: BTreeMap<u64, u64>,
    /// The sum of their lengths.
    total: u64,
    changes: VecDeque<Change>,
}

/// A change of the rate: how it moved the times after `at`.
#[derive(Clone, Copy, Debug)]
struct Change {
    number: u64,
    at: u64,
    old_period: u64,
    period: u64,
    /// When all time that was taken before the change has passed.
    expires: u64,
}

/// A call's time survives this many changes of the rate while it lies ahead.
const MAX_CHANGES: usize = 64;

impl Change {
    /// Where the change moved `time`. Monotonic, so that spans stay disjoint and in order. Rounded
    /// up, to the strict side.
    fn moved(&self, time: u64) -> u64 {
        let debt = u128::from(time.saturating_sub(self.at)) * u128::from(self.period);
        let debt = debt.div_ceil(u128::from(self.old_period));
        if debt == 0 { time } else { u64::try_from(u128::from(self.at) + debt).unwrap_or(u64::MAX) }
    }
}

impl Returned {
    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn prune_units(&mut self, now: u64) {
        while let Some(entry) = self.free.first_entry()
            && *entry.key() < now
        {
            let (start, end) = entry.remove_entry();
            self.total -= end - start;
            self.put(Span { start: now, end });
        }
    }

    /// Drops the time that has passed.
    pub(crate) fn prune(&mut self, now: Nanos) {
        self.prune_units(units(now));
    }

    /// The sum of the returned time.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The returned time before `limit`, up to `need`.
    pub(super) fn usable(&self, limit: u64, need: u64) -> u64 {
        let mut usable = 0;
        for (start, end) in self.free.range(..limit) {
            usable += (*end).min(limit) - start;
            if usable >= need {
                return need;
            }
        }
        usable
    }

    /// Takes the earliest `amount` of the returned time.
    pub(super) fn take(&mut self, mut amount: u64) -> Vec<Span> {
        let mut spans = Vec::new();
        while amount > 0
            && let Some((start, end)) = self.free.pop_first()
        {
            let split = end.min(start + amount);
            if split < end {
                self.free.insert(split, end);
            }
            amount -= split - start;
            self.total -= split - start;
            spans.push(Span { start, end: split });
        }
        spans
    }

    /// Adds a span.
    pub(super) fn put(&mut self, Span { mut start, mut end }: Span) {
        if start >= end {
            return;
        }
        self.total += end - start;
        if let Some((before, until)) = self.free.range(..start).next_back().map(|(start, end)| (*start, *end))
            && until == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(until) = self.free.remove(&end) {
            end = until;
        }
        self.free.insert(start, end);
    }

    /// The arrival time once the span right before it is given up.
    pub(super) fn rewind(&mut self, tat: u64) -> u64 {
        match self.free.last_entry() {
            Some(entry) if *entry.get() == tat => {
                let (start, end) = entry.remove_entry();
                self.total -= end - start;
                start
            }
            _ => tat,
        }
    }

    /// Records the change with this number and moves the returned time. Returns the arrival time
    /// after it.
    pub(super) fn change(&mut self, number: u64, now: u64, periods: (u64, u64), tat: u64) -> u64 {
        let change = Change { number, at: now, old_period: periods.0, period: periods.1, expires: 0 };
        let moved = change.moved(tat);
        for earlier in &mut self.changes {
            earlier.expires = change.moved(earlier.expires);
        }
        while self.changes.front().is_some_and(|change| change.expires <= now) || self.changes.len() >= MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { expires: moved, ..change });
        self.total = 0;
        let free = std::mem::take(&mut self.free);
        for (start, end) in free {
            self.put(Span { start: change.moved(start), end: change.moved(end) });
        }
        moved
    }

    /// Where a span that was taken under the change `number` lies now. `None` if that is no longer
    /// known.
    pub(super) fn moved(&self, span: Span, number: u64) -> Option<Span> {
        let known = self.changes.front().is_none_or(|first| first.number <= number + 1);
        let later = self.changes.iter().filter(|change| change.number > number);
        known.then(|| {
            later.fold(span, |span, change| Span { start: change.moved(span.start), end: change.moved(span.end) })
        })
    }
}
