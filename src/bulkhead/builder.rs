use std::{sync::Arc, time::Duration};

use super::{Bulkhead, inner::BulkheadInner};
use crate::{
    clock::TimeSource,
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::{semaphore::Semaphore, striped::StripedArc},
};

/// Configures a [`Bulkhead`].
///
/// # Defaults
///
/// | field | default |
/// |---|---|
/// | `max_concurrent` | 64 |
/// | `max_wait` | zero: reject immediately |
/// | `max_queue` | equal to `max_concurrent` |
/// | `observer` | none |
/// | `clock` | tokio's |
///
/// The figures behind `max_concurrent`, measured by the fault lab as part of a client stack:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
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

    /// Sets the maximum number of calls in flight, at least 1. A number above 16,777,215 has the
    /// same effect as that.
    pub fn max_concurrent(mut self, calls: u32) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// Sets how long a call may wait for a permit. Zero rejects immediately; [`Duration::MAX`]
    /// waits without bound.
    ///
    /// Applies where waiting is requested: [`BulkheadLayer::wait`](super::BulkheadLayer::wait),
    /// [`Bulkhead::acquire`] and [`Bulkhead::run`].
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets the maximum number of waiting calls; one more is rejected immediately. At least 1 if
    /// calls may wait at all.
    pub fn max_queue(mut self, calls: u32) -> Self {
        self.max_queue = Some(calls);
        self
    }

    observer_setter!();

    clock_setter!(
        "It provides the times in events, and decides when a reservation"
        "[lapses](super#idle-reservations). Waiting uses tokio's timers."
    );

    /// Builds the bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_concurrent` is zero, or if calls may wait (`max_wait`) but the queue
    /// has no slots (`max_queue`).
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        self.check().map_err(|error| error.of(&self.name))?;
        Ok(Bulkhead(StripedArc::new(BulkheadInner {
            semaphore: Semaphore::new(self.max_concurrent),
            built_limit: self.max_concurrent,
            max_wait: self.max_wait,
            max_queue: self.max_queue.unwrap_or(self.max_concurrent),
            events: EventEmitter::new(Pattern::Bulkhead, self.name, self.observer),
            time: self.time,
        })))
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_limit(self.max_concurrent)?;
        if self.max_queue == Some(0) && !self.max_wait.is_zero() {
            return Err(ConfigError::new("max_queue", "is zero, but max_wait allows calls to wait; use at least 1"));
        }
        Ok(())
    }
}

pub(super) fn check_limit(limit: u32) -> Result<(), ConfigError> {
    if limit == 0 {
        return Err(ConfigError::new("max_concurrent", "is zero: no call could ever be admitted; use at least 1"));
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
