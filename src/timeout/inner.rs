//! The state that all handles and calls of one timeout share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    call::HasShared,
    deadline::{self, NEVER},
    error::Rejection,
    event::EventEmitter,
    name::Name,
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
    pub(crate) fn time_out(&self, after: Duration, expired: Expired) -> Rejection {
        self.events.reject(|name| expired.rejection(name, after))
    }
}

/// The limit that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The timeout's own limit.
    Own,
    /// The caller's deadline.
    Outer,
    /// A deadline around the timeout, before the service was called.
    OuterBeforeCall,
}

impl Expired {
    /// What expires at the earliest deadline that no timer enforces: the caller's, or a limit of a
    /// layer outside, which is the dependency's as well as the timeout's own.
    pub(super) fn at(unenforced: u64) -> Self {
        if deadline::callers() <= unenforced { Self::Outer } else { Self::Own }
    }

    fn rejection(self, name: Name, after: Duration) -> Rejection {
        match self {
            Self::Own => Rejection::timed_out(name, after, true),
            Self::Outer => Rejection::cut_short(name, after),
            Self::OuterBeforeCall => Rejection::timed_out(name, after, false),
        }
    }
}

pub(super) fn duration_of(nanos: u64) -> Duration {
    if nanos == NEVER { Duration::MAX } else { Duration::from_nanos(nanos) }
}

/// The kind of the only timeout of a call. A client stack's call has two, of different kinds.
pub(crate) struct Standalone;

/// A call's access to its timeout of the kind `K`.
pub(crate) trait HasTimeout<K> {
    /// `None` if the call reports to no observer.
    fn events(&self) -> Option<&EventEmitter>;

    /// Rejects and reports a call that has taken, or would take, longer than `after`.
    fn time_out(&self, after: Duration, expired: Expired) -> Rejection;
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

    fn time_out(&self, after: Duration, expired: Expired) -> Rejection {
        self.timeout().time_out(after, expired)
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

    fn time_out(&self, after: Duration, expired: Expired) -> Rejection {
        match self {
            Self::Unobserved(name) => expired.rejection(Name::from(*name), after),
            Self::Shared(timeout) => timeout.time_out(after, expired),
        }
    }
}
