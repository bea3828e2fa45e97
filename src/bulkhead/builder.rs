use std::{sync::Arc, time::Duration};

use super::{Bulkhead, inner::BulkheadInner, queue::PermitQueue};
use crate::{
    clock::{Clock, TimeSource},
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
};

/// Configures a [`Bulkhead`].
///
/// # Defaults
///
/// | field | default |
/// |---|---|
/// | `max_concurrent` | 64 |
/// | `max_wait` | zero: refuse at once |
/// | `max_queue` | as many as `max_concurrent` |
/// | `observer` | none |
/// | `clock` | tokio's |
///
/// The figures behind `max_concurrent`, as part of a client's stack, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[must_use]
pub struct BulkheadBuilder {
    name: Name,
    max_concurrent: u32,
    max_wait: Duration,
    max_queue: Option<u32>,
    observer: Option<Arc<dyn Observer>>,
    time: TimeSource,
}

impl BulkheadBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            max_concurrent: 64,
            max_wait: Duration::ZERO,
            max_queue: None,
            observer: None,
            time: TimeSource::default(),
        }
    }

    /// Calls in flight at once, at least 1.
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// How long a call may wait for a permit. Zero refuses at once; [`Duration::MAX`] waits as long as it takes.
    ///
    /// Applies where waiting is asked for: [`BulkheadLayer::wait`](super::BulkheadLayer::wait),
    /// [`Bulkhead::acquire`] and [`Bulkhead::run`].
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How many calls may wait at once; one more is refused at once. At least 1 when calls may wait at all.
    pub fn max_queue(mut self, calls: u32) -> Self {
        self.max_queue = Some(calls);
        self
    }

    /// Who is told what happens.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Another clock, for the times in events. Waiter stays with tokio's timers.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.time = TimeSource::custom(clock);
        self
    }

    /// The bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `max_concurrent` is zero, or when calls may wait (`max_wait`) in a queue without places
    /// (`max_queue`).
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        check_limit(self.max_concurrent)?;
        if self.max_queue == Some(0) && !self.max_wait.is_zero() {
            return Err(ConfigError::new("max_queue", "is zero, but max_wait lets calls wait: nobody could"));
        }
        Ok(Bulkhead(StripedArc::new(BulkheadInner {
            queue: PermitQueue::new(self.max_concurrent),
            max_wait: self.max_wait,
            max_queue: self.max_queue.unwrap_or(self.max_concurrent),
            events: EventEmitter::new(Pattern::Bulkhead, self.name, self.observer),
            time: self.time,
        })))
    }
}

pub(super) fn check_limit(limit: u32) -> Result<(), ConfigError> {
    if limit == 0 {
        return Err(ConfigError::new("max_concurrent", "is zero: no call could ever pass; use at least 1"));
    }
    Ok(())
}

impl std::fmt::Debug for BulkheadBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkheadBuilder")
            .field("name", &self.name)
            .field("max_concurrent", &self.max_concurrent)
            .field("max_wait", &self.max_wait)
            .field("max_queue", &self.max_queue)
            .finish_non_exhaustive()
    }
}
