use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    TimeoutLayer,
    future::ResponseFuture,
    timed_call::{StartingTimedCall, TimedCall, TimeoutOwner},
};
use crate::{
    call::{Leaf, WithShared},
    deadline::NEVER,
    error::FromRejection,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
    state::time::nanos_of,
};

/// Gives a call up that takes too long. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones share the limit and the observer.
#[derive(Clone)]
pub struct Timeout(pub(crate) StripedArc<TimeoutInner>);

pub(crate) struct TimeoutInner {
    /// In nanoseconds, or [`NEVER`]; `nanos_of` saturates to it.
    limit: AtomicU64,
    pub(crate) events: EventEmitter,
}

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
        TimeoutBuilder { name: name.into(), limit, observer: None }
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The limit of calls that begin now.
    pub fn limit(&self) -> Duration {
        duration_of(self.nanos())
    }

    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit of calls that begin from now on.
    pub fn set_limit(&self, limit: Duration) {
        self.0.limit.store(nanos_of(limit), Ordering::Relaxed);
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
        self.begin(self.nanos(), || future).await
    }

    /// `after` in nanoseconds, or [`NEVER`].
    #[inline(always)]
    pub(super) fn begin<F>(&self, after: u64, start: impl FnOnce() -> F) -> ResponseFuture<F> {
        let owner = TimeoutOwner::of(self);
        let mut marks = None;
        let call = match StartingTimedCall::new(&owner, Some(after), &mut marks) {
            Ok(starting) => starting.started(Leaf::new(start())),
            Err(rejection) => TimedCall::rejected(rejection),
        };
        ResponseFuture::new(WithShared::new(owner, call))
    }

    /// The rejection of something that took longer than `limit`, told to the observer.
    #[cfg(feature = "http")]
    pub(crate) fn reject(&self, limit: Duration) -> crate::Rejection {
        self.0.events.reject(|name| crate::Rejection::timed_out(name, limit, true))
    }

    /// How it is set.
    pub fn snapshot(&self) -> TimeoutSnapshot {
        TimeoutSnapshot { limit: self.limit() }
    }
}

pub(super) fn duration_of(nanos: u64) -> Duration {
    if nanos == NEVER { Duration::MAX } else { Duration::from_nanos(nanos) }
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

/// Configures a [`Timeout`]. There is nothing in it that could be wrong: every duration means something.
#[must_use]
pub struct TimeoutBuilder {
    name: Name,
    limit: Duration,
    observer: Option<Arc<dyn Observer>>,
}

impl TimeoutBuilder {
    /// Who is told what happens. With an observer, the clock is read at the starting and the end of each call.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The timeout.
    pub fn build(self) -> Timeout {
        let events = EventEmitter::new(Pattern::Timeout, self.name, self.observer);
        Timeout(StripedArc::new(TimeoutInner { limit: AtomicU64::new(nanos_of(self.limit)), events }))
    }
}

impl fmt::Debug for TimeoutBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBuilder").field("name", &self.name).field("limit", &self.limit).finish_non_exhaustive()
    }
}
