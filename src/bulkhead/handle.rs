use std::{fmt, future::Future, time::Duration};

use super::{
    BulkheadBuilder, BulkheadLayer,
    builder::check_limit,
    inner::{BulkheadInner, CallPermit, WaitForPermit},
};
use crate::{
    call::{CancelOnDrop, Guarded, LeafCall, WithShared},
    classify::Verdict,
    error::{ConfigError, FromRejection, Rejection},
    name::Name,
    shared::{
        striped::{StripedArc, StripedRef},
        unwind,
    },
};

/// A handle to a limit of concurrent calls. See the [module docs](super).
///
/// Cheap to clone. All clones share the limit.
#[derive(Clone)]
pub struct Bulkhead(pub(crate) StripedArc<BulkheadInner>);

impl Bulkhead {
    /// Returns a builder with the defaults of [`BulkheadBuilder`].
    pub fn builder(name: impl Into<Name>) -> BulkheadBuilder {
        BulkheadBuilder::new(name.into())
    }

    /// Creates a bulkhead that rejects calls above `max_concurrent` immediately: for calls that can
    /// go elsewhere or cannot wait.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_concurrent` is zero.
    pub fn new(name: impl Into<Name>, max_concurrent: u32) -> Result<Self, ConfigError> {
        Self::builder(name).max_concurrent(max_concurrent).build()
    }

    /// Creates a bulkhead in which as many calls may wait as may run, each for up to `max_wait`,
    /// where waiting is requested. The queue absorbs bursts. A wait longer than the caller's
    /// timeout is useless.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_concurrent` is zero.
    pub fn queued(name: impl Into<Name>, max_concurrent: u32, max_wait: Duration) -> Result<Self, ConfigError> {
        Self::builder(name).max_concurrent(max_concurrent).max_wait(max_wait).build()
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// Returns a layer that limits the concurrent calls of a service and rejects the rest.
    pub fn layer(&self) -> BulkheadLayer {
        BulkheadLayer::new(self)
    }

    /// Acquires a permit without waiting. Dropping the guard releases it.
    ///
    /// Two read-modify-writes on the permit word in all, no clock read, no allocation, no reference
    /// count. A rejection reads the clock while permits are reserved.
    ///
    /// # Errors
    ///
    /// [`Rejection::BulkheadFull`] if no permit is free, or if other calls wait for one, and no
    /// reservation has [lapsed](super#idle-reservations).
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        let bulkhead = &*self.0;
        match bulkhead.try_admit() {
            Some(permit) => Ok(Permit { guard: CancelOnDrop::new(bulkhead, permit) }),
            None => bulkhead.reject_full_as(Err),
        }
    }

    /// Acquires a permit without waiting. The guard does not borrow the handle.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(&self) -> Result<OwnedPermit, Rejection> {
        match self.0.try_admit() {
            Some(permit) => Ok(OwnedPermit { guard: CancelOnDrop::new(self.0.acquire_ref(), permit) }),
            None => self.0.reject_full_as(Err),
        }
    }

    /// Acquires a permit, waiting for up to `max_wait`, first come, first served.
    ///
    /// Cancel-safe: dropping the future leaves the queue, and releases a permit that was granted
    /// meanwhile. If the future is not polled, such a permit [lapses](super#idle-reservations).
    ///
    /// # Errors
    ///
    /// [`Rejection::BulkheadFull`] immediately if calls may not wait or the queue is full;
    /// [`Rejection::QueueTimeout`] after `max_wait`.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime with time enabled.
    pub async fn acquire(&self) -> Result<Permit<'_>, Rejection> {
        Ok(Permit { guard: self.admit().await? })
    }

    async fn admit(&self) -> Result<CancelOnDrop<&BulkheadInner, CallPermit>, Rejection> {
        let bulkhead = &*self.0;
        match bulkhead.try_admit() {
            Some(permit) => Ok(CancelOnDrop::new(bulkhead, permit)),
            None if bulkhead.may_wait() => Ok(CancelOnDrop::new(bulkhead, WaitForPermit::new(bulkhead).await?)),
            None => bulkhead.reject_full_as(Err),
        }
    }

    /// Runs `future` with a permit, waiting for it as [`acquire`](Self::acquire) does.
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
    /// The future's own error, or the rejection of [`acquire`](Self::acquire).
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let (bulkhead, permit) = self.admit().await?.disarm();
        WithShared::new(bulkhead, Guarded::started(LeafCall::new(future), Some(permit))).await
    }

    /// Changes the limit while calls are in flight. A higher limit admits waiting calls
    /// immediately; a lower one revokes nothing and takes effect as permits are released. A number
    /// above 16,777,215 has the same effect as that.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_concurrent` is zero, in which case the limit does not change.
    pub fn resize(&self, max_concurrent: u32) -> Result<(), ConfigError> {
        check_limit(max_concurrent).map_err(|error| error.of(self.name()))?;
        self.0.semaphore.set_limit(max_concurrent);
        Ok(())
    }

    /// Returns a snapshot of the bulkhead.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        let (in_flight, reserved, waiting) = self.0.semaphore.counts();
        BulkheadSnapshot {
            limit: self.0.semaphore.permits.limit(),
            in_flight,
            reserved,
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

/// The state of a [`Bulkhead`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The maximum number of calls in flight.
    pub limit: u32,
    /// Permits in flight: in use by a call, or reserved for one.
    pub in_flight: u32,
    /// The permits in flight that are reserved: by a service that is ready, or for a waiter that
    /// was granted one and has not been polled since.
    pub reserved: u32,
    /// Calls waiting for a permit.
    pub waiting: u32,
    /// The longest time a call may wait.
    pub max_wait: Duration,
    /// The maximum number of waiting calls.
    pub max_queue: u32,
}

/// A permit of a [`Bulkhead`]. Dropping it releases it.
///
/// The bulkhead does not know how the call ended, and reports it as a success, also if a panic
/// drops the permit: the panic may be that of other code.
#[derive(Debug)]
#[must_use = "dropping the permit releases it"]
pub struct Permit<'a> {
    guard: CancelOnDrop<&'a BulkheadInner, CallPermit>,
}

impl Drop for Permit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        unwind::contain(|| self.guard.finish(Verdict::Success));
    }
}

/// A permit that does not borrow its [`Bulkhead`]. Dropping it releases it.
///
/// The events are those of a [`Permit`].
#[derive(Debug)]
#[must_use = "dropping the permit releases it"]
pub struct OwnedPermit {
    guard: CancelOnDrop<StripedRef<BulkheadInner>, CallPermit>,
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        unwind::contain(|| self.guard.finish(Verdict::Success));
    }
}
