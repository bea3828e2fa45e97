use std::{fmt, future::Future, time::Duration};

use super::{
    TimeoutBuilder, TimeoutLayer,
    future::ResponseFuture,
    inner::{Standalone, TimeoutInner, TimeoutOwner, duration_of},
    timed_call::{StartingTimedCall, TimedCall},
};
use crate::{
    call::{Leaf, WithShared},
    error::FromRejection,
    name::Name,
    shared::striped::StripedArc,
};

/// Gives a call up that takes too long. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones share the limit and the observer.
#[derive(Clone)]
pub struct Timeout(pub(crate) StripedArc<TimeoutInner>);

impl Timeout {
    /// Gives calls up after `limit`.
    ///
    /// Zero gives up a call that is not ready at its first poll; [`Duration::MAX`], or any limit beyond 584 years,
    /// never does.
    pub fn new(name: impl Into<Name>, limit: Duration) -> Self {
        Self::builder(name, limit).build()
    }

    /// A timeout with more settings.
    pub fn builder(name: impl Into<Name>, limit: Duration) -> TimeoutBuilder {
        TimeoutBuilder::new(name.into(), limit)
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The limit of calls that begin now.
    pub fn limit(&self) -> Duration {
        duration_of(self.0.limit())
    }

    /// Changes the limit of calls that begin from now on.
    pub fn set_limit(&self, limit: Duration) {
        self.0.set_limit(limit);
    }

    /// The layer that gives up a service's calls.
    pub fn layer(&self) -> TimeoutLayer {
        TimeoutLayer::new(self)
    }

    /// Runs `future` for no longer than the limit.
    ///
    /// The clock starts at the first poll. On a tie the future's own result wins.
    ///
    /// # Errors
    ///
    /// The future's own, or [`Rejection::TimedOut`](crate::Rejection::TimedOut); the future has been dropped then.
    ///
    /// # Panics
    ///
    /// When the future is not ready at its first poll, outside of a tokio runtime with time enabled.
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let owner = TimeoutOwner::of(&self.0);
        let mut saved = None;
        let call = match StartingTimedCall::new::<_, Standalone>(&owner, self.0.limit(), &mut saved) {
            Ok(starting) => starting.started(Leaf::new(future)),
            Err(rejection) => TimedCall::rejected(rejection),
        };
        ResponseFuture::new(WithShared::new(owner, call)).await
    }

    /// The rejection of something that took longer than `limit`, told to the observer.
    #[cfg(feature = "http")]
    pub(crate) fn reject(&self, limit: Duration) -> crate::Rejection {
        self.0.time_out(limit, true)
    }

    /// How it is set.
    pub fn snapshot(&self) -> TimeoutSnapshot {
        TimeoutSnapshot { limit: self.limit() }
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// How a [`Timeout`] is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutSnapshot {
    /// The limit of calls that begin now.
    pub limit: Duration,
}
