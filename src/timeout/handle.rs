use std::{fmt, future::Future, time::Duration};

use super::{
    TimeoutBuilder, TimeoutLayer,
    inner::{Standalone, TimeoutInner, TimeoutOwner, duration_of},
    timed_call::StartingTimedCall,
};
use crate::{
    call::{LeafCall, WithShared},
    error::FromRejection,
    name::Name,
    shared::striped::StripedArc,
};

/// A handle to a time limit. See the [module docs](super).
///
/// Cheap to clone. All clones share the limit and the observer.
#[derive(Clone)]
pub struct Timeout(pub(crate) StripedArc<TimeoutInner>);

impl Timeout {
    /// Creates a timeout that ends each call after `limit`.
    ///
    /// With a limit of zero, a call that is not ready at its first poll times out. With
    /// [`Duration::MAX`], or any limit beyond 584 years, no call does.
    pub fn new(name: impl Into<Name>, limit: Duration) -> Self {
        Self::builder(name, limit).build()
    }

    /// Returns a builder, for more settings.
    pub fn builder(name: impl Into<Name>, limit: Duration) -> TimeoutBuilder {
        TimeoutBuilder::new(name.into(), limit)
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// Returns the limit of calls that start now.
    pub fn limit(&self) -> Duration {
        duration_of(self.0.limit())
    }

    /// Changes the limit of calls that start from now on.
    pub fn set_limit(&self, limit: Duration) {
        self.0.set_limit(limit);
    }

    /// Returns a layer that limits the time of a service's calls.
    pub fn layer(&self) -> TimeoutLayer {
        TimeoutLayer::new(self)
    }

    /// Runs `future` for at most the limit.
    ///
    /// The clock starts at the first poll. A result that is ready wins over a limit that has
    /// passed.
    ///
    /// # Errors
    ///
    /// The future's own error, or [`Rejection::TimedOut`](crate::Rejection::TimedOut), after the
    /// future has been dropped.
    ///
    /// # Panics
    ///
    /// If the future is not ready at its first poll, outside of a tokio runtime with time enabled.
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let owner = TimeoutOwner::of(&self.0);
        let mut saved = None;
        let starting = StartingTimedCall::<_, Standalone>::new(&owner, Some(self.0.limit()), &mut saved)?;
        let call = starting.started(LeafCall::new(future));
        WithShared::new(owner, call).await
    }

    /// Rejects and reports a call that has taken longer than `limit`.
    #[cfg(feature = "http")]
    pub(crate) fn reject(&self, limit: Duration) -> crate::Rejection {
        self.reject_expired(limit, super::Expired::Own)
    }

    /// Rejects and reports a call that has taken, or would take, longer than `limit`.
    #[cfg(feature = "http")]
    pub(crate) fn reject_expired(&self, limit: Duration, expired: super::Expired) -> crate::Rejection {
        self.0.time_out(limit, expired)
    }

    /// Returns the current settings.
    pub fn snapshot(&self) -> TimeoutSnapshot {
        TimeoutSnapshot { limit: self.limit() }
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// The settings of a [`Timeout`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutSnapshot {
    /// The limit of calls that start now.
    pub limit: Duration,
}
