//! The state that all handles and calls of one timeout share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::timer::{Inline, Timer};
use crate::{
    call::HasShared,
    deadline::NEVER,
    error::Rejection,
    event::EventEmitter,
    shared::striped::{StripedArc, StripedRef},
    state::time::nanos_of,
};

pub(crate) struct TimeoutInner {
    /// In nanoseconds, or [`NEVER`], to which `nanos_of` saturates.
    limit: AtomicU64,
    built_limit: u64,
    pub(crate) events: EventEmitter,
}

impl TimeoutInner {
    pub(super) fn new(limit: Duration, events: EventEmitter) -> Self {
        let limit = nanos_of(limit);
        Self { limit: AtomicU64::new(limit), built_limit: limit, events }
    }

    /// The limit in nanoseconds, or [`NEVER`].
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether the limit is the one that it was built with.
    pub(crate) fn has_built_limit(&self) -> bool {
        self.limit() == self.built_limit
    }

    pub(super) fn set_limit(&self, limit: Duration) {
        self.limit.store(nanos_of(limit), Ordering::Relaxed);
    }

    /// Rejects a call that has taken, or would take, longer than `after`.
    #[cold]
    pub(crate) fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        self.events.reject(|name| Rejection::timed_out(name, after, attempted))
    }
}

pub(super) fn duration_of(nanos: u64) -> Duration {
    if nanos == NEVER { Duration::MAX } else { Duration::from_nanos(nanos) }
}

/// The position of a timeout: a call may have two.
pub(crate) trait TimeoutKind {
    type Timer: Timer;
}

/// The only timeout of a call.
pub(crate) struct Standalone;

impl TimeoutKind for Standalone {
    type Timer = Inline;
}

/// A call's access to its timeout of the kind `K`.
pub(crate) trait HasTimeout<K> {
    /// `None` if the call reports to no observer.
    fn events(&self) -> Option<&EventEmitter>;

    /// Rejects and reports a call that has taken, or would take, longer than `after`.
    fn time_out(&self, after: Duration, attempted: bool) -> Rejection;
}

/// Gives a call access to its timeout of the kind `K`.
pub(crate) trait TimeoutOf<K> {
    fn timeout(&self) -> &TimeoutInner;

    /// [`HasTimeout::events`]
    fn timeout_events(&self) -> Option<&EventEmitter>;
}

impl<K, P: TimeoutOf<K>> HasTimeout<K> for P {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        self.timeout_events()
    }

    fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        self.timeout().time_out(after, attempted)
    }
}

/// The timeout of a single layer's call. Without an observer, a static name is all that the call
/// needs.
pub(crate) enum TimeoutOwner {
    Unobserved(&'static str),
    Shared(StripedRef<TimeoutInner>),
}

impl TimeoutOwner {
    #[inline(always)]
    pub(super) fn of(timeout: &StripedArc<TimeoutInner>) -> Self {
        match timeout.events.name().as_static() {
            Some(name) if !timeout.events.has_observer() => Self::Unobserved(name),
            _ => Self::Shared(timeout.acquire_ref()),
        }
    }
}

impl HasShared for TimeoutOwner {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

impl HasTimeout<Standalone> for TimeoutOwner {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        match self {
            Self::Unobserved(_) => None,
            Self::Shared(timeout) => Some(&timeout.events),
        }
    }

    fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        match self {
            Self::Unobserved(name) => Rejection::timed_out(*name, after, attempted),
            Self::Shared(timeout) => timeout.time_out(after, attempted),
        }
    }
}
