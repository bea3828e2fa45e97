use std::{fmt, future::Future, time::Duration};

use super::{
    BulkheadBuilder, BulkheadLayer,
    builder::check_limit,
    inner::{BulkheadInner, CallPermit, WaitForPermit},
};
use crate::{
    call::CancelOnDrop,
    classify::Verdict,
    error::{ConfigError, FromRejection, Rejection},
    name::Name,
    shared::striped::{StripedArc, StripedRef},
};

/// At most N calls at once. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones count together.
#[derive(Clone)]
pub struct Bulkhead(pub(crate) StripedArc<BulkheadInner>);

impl Bulkhead {
    /// A bulkhead with the defaults of [`BulkheadBuilder`], to be changed.
    pub fn builder(name: impl Into<Name>) -> BulkheadBuilder {
        BulkheadBuilder::new(name.into())
    }

    /// Refuses at once what exceeds `max_concurrent`: for calls that have somewhere else to go, or no time.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `max_concurrent` is zero.
    pub fn new(name: impl Into<Name>, max_concurrent: u32) -> Result<Self, ConfigError> {
        Self::builder(name).max_concurrent(max_concurrent).build()
    }

    /// Lets as many calls wait as may run, each for up to `max_wait`, where waiting is asked for: takes the edge off a
    /// burst. Longer than a caller's timeout is longer than anybody waits.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `max_concurrent` is zero.
    pub fn queued(name: impl Into<Name>, max_concurrent: u32, max_wait: Duration) -> Result<Self, ConfigError> {
        Self::builder(name).max_concurrent(max_concurrent).max_wait(max_wait).build()
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The layer that lets at most N calls at once through to a service; it refuses the rest.
    pub fn layer(&self) -> BulkheadLayer {
        BulkheadLayer::new(self)
    }

    /// Takes a permit, without waiting. It comes home when the guard is dropped.
    ///
    /// Two read-modify-writes on the permit word in all, no clock, no allocation, no reference count.
    ///
    /// # Errors
    ///
    /// [`Rejection::BulkheadFull`] when none is free, or when others wait for one.
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        let inner = &*self.0;
        match inner.admit() {
            Some(permitted) => Ok(Permit { held: CancelOnDrop::new(inner, permitted) }),
            None => Err(inner.full()),
        }
    }

    /// Takes a permit, without waiting, that does not borrow the handle.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(&self) -> Result<OwnedPermit, Rejection> {
        match self.0.admit() {
            Some(permitted) => Ok(OwnedPermit { held: CancelOnDrop::new(self.0.acquire_ref(), permitted) }),
            None => Err(self.0.full()),
        }
    }

    /// Takes a permit; waits for one for up to `max_wait`, first come first served.
    ///
    /// Cancel-safe: a wait that is dropped leaves the queue, and takes no permit with it.
    ///
    /// # Errors
    ///
    /// [`Rejection::BulkheadFull`] at once when nobody may wait, or the queue is full; [`Rejection::QueueTimeout`]
    /// after `max_wait`.
    ///
    /// # Panics
    ///
    /// When it has to wait outside of a tokio runtime with time enabled.
    pub async fn acquire(&self) -> Result<Permit<'_>, Rejection> {
        Ok(Permit { held: self.admit().await? })
    }

    async fn admit(&self) -> Result<CancelOnDrop<&BulkheadInner, CallPermit>, Rejection> {
        let inner = &*self.0;
        match inner.admit() {
            Some(permitted) => Ok(CancelOnDrop::new(inner, permitted)),
            None if inner.may_wait() => Ok(CancelOnDrop::new(inner, WaitForPermit::new(inner).await?)),
            None => Err(inner.full()),
        }
    }

    /// Runs `future` with a permit, which it waits for as [`acquire`](Self::acquire) does.
    ///
    /// ```
    /// use tower_rampart::{Error, adapt, bulkhead::Bulkhead};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bulkhead = Bulkhead::new("reports", 4)?;
    /// // `adapt` is for errors that cannot be made from a rejection.
    /// let read = adapt(tokio::fs::read("Cargo.toml"));
    /// match bulkhead.run(read).await {
    ///     Ok(bytes) => assert!(!bytes.is_empty()),
    ///     Err(Error::Rejected(rejection)) => println!("come back later: {rejection}"),
    ///     Err(Error::Service(error)) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The future's own, or a rejection as [`acquire`](Self::acquire) gives it.
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let held = self.admit().await?;
        let result = future.await;
        held.complete(result.as_ref());
        result
    }

    /// Changes the limit while calls are in flight. A higher one lets waiting calls in at once; a lower one revokes
    /// nothing and takes effect as permits come home.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is zero; the limit then stays as it is.
    pub fn resize(&self, max_concurrent: u32) -> Result<(), ConfigError> {
        check_limit(max_concurrent)?;
        self.0.queue.set_limit(max_concurrent);
        Ok(())
    }

    /// How it stands.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        let (in_flight, waiting) = self.0.queue.permits().counts();
        BulkheadSnapshot {
            limit: self.0.queue.permits().limit(),
            in_flight,
            waiting,
            max_wait: self.0.max_wait,
            max_queue: self.0.max_queue,
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// How a [`Bulkhead`] stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// Calls it lets in at once.
    pub limit: u32,
    /// Permits out.
    pub in_flight: u32,
    /// Calls that wait for one.
    pub waiting: u32,
    /// How long a call may wait.
    pub max_wait: Duration,
    /// How many calls may wait.
    pub max_queue: u32,
}

/// A permit of a [`Bulkhead`]. Comes home when it is dropped.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct Permit<'a> {
    held: CancelOnDrop<&'a BulkheadInner, CallPermit>,
}

impl Drop for Permit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        end_of_permit(&mut self.held);
    }
}

/// A permit that does not borrow its [`Bulkhead`]. Comes home when it is dropped.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct OwnedPermit {
    held: CancelOnDrop<StripedRef<BulkheadInner>, CallPermit>,
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        end_of_permit(&mut self.held);
    }
}

/// A guard that is dropped in the course of things is the end of its call; one that a panic drops was cancelled, which
/// is what `CancelOnDrop` says when it is dropped itself.
#[inline(always)]
fn end_of_permit<H: std::ops::Deref<Target = BulkheadInner>>(held: &mut CancelOnDrop<H, CallPermit>) {
    if !std::thread::panicking() {
        held.with(|inner, permitted| permitted.finish(inner, Verdict::Success));
    }
}
