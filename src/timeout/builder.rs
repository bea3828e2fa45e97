use std::{fmt, sync::Arc, time::Duration};

use super::{Timeout, inner::TimeoutInner};
use crate::{
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
};

/// Configures a [`Timeout`]. Building it cannot fail: every duration is a valid limit.
#[must_use]
pub struct TimeoutBuilder {
    name: Name,
    limit: Duration,
    observer: Option<Arc<dyn Observer>>,
}

impl TimeoutBuilder {
    pub(super) fn new(name: Name, limit: Duration) -> Self {
        Self { name, limit, observer: None }
    }

    observer_setter!("With an observer, the clock is read when a call starts and when it completes.");

    /// Builds the timeout.
    pub fn build(self) -> Timeout {
        let events = EventEmitter::new(Pattern::Timeout, self.name, self.observer);
        Timeout(StripedArc::new(TimeoutInner::new(self.limit, events)))
    }
}

impl fmt::Debug for TimeoutBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBuilder").field("name", &self.name).field("limit", &self.limit).finish_non_exhaustive()
    }
}
