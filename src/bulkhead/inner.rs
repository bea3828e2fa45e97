//! What all handles and futures of one bulkhead share, and the life of one call in it.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::queue::{Queue, Waiting};
use crate::{
    classify::{Classify, ResultClassifier, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventKind, Tell},
    guarded::Guard,
};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) queue: Queue,
    pub(crate) max_wait: Duration,
    pub(crate) max_queue: u32,
    pub(crate) tell: Tell,
    pub(crate) time: TimeSource,
}

impl Inner {
    /// The refusal of a call that found all permits out and no place to wait.
    pub(crate) fn full(&self) -> Rejection {
        self.tell.reject(Rejection::bulkhead_full(self.tell.name().clone(), self.queue.permits().limit()))
    }

    /// Whether a call that finds no free permit may wait for one.
    pub(crate) fn may_wait(&self) -> bool {
        !self.max_wait.is_zero() && self.max_queue > 0
    }
}

/// A permit that no call uses yet. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot<H: Deref<Target = Inner>>(Option<H>);

impl<H: Deref<Target = Inner>> Slot<H> {
    /// Takes a permit if one is free.
    pub(crate) fn try_take(holder: H) -> Result<Self, H> {
        if holder.queue.try_acquire() { Ok(Self(Some(holder))) } else { Err(holder) }
    }

    /// For a permit that the queue has given.
    pub(crate) fn granted(holder: H) -> Self {
        Self(Some(holder))
    }

    /// The call begins.
    pub(crate) fn admit(mut self) -> Call<H> {
        let holder = self.0.take();
        // Guarded before the observer is told: if it panics, the permit comes home.
        let call = Call(holder);
        if let Some(holder) = &call.0 {
            holder.tell.event(|| EventKind::Admitted);
        }
        call
    }
}

impl<H: Deref<Target = Inner>> Drop for Slot<H> {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.queue.release();
        }
    }
}

/// A call with its permit. Dropping it before it ended is its cancellation.
#[derive(Debug)]
pub(crate) struct Call<H: Deref<Target = Inner>>(Option<H>);

impl<H: Deref<Target = Inner>> Call<H> {
    /// The call ended: the permit comes home now, however long the future's value is kept.
    pub(crate) fn finish(&mut self, verdict: Verdict) {
        if let Some(holder) = self.0.take() {
            holder.queue.release();
            holder.tell.event(|| EventKind::Completed { verdict, elapsed: None });
        }
    }
}

impl<H: Deref<Target = Inner>, T, E> Guard<T, E> for Call<H> {
    fn end(&mut self, result: Result<&T, &E>) {
        self.finish(ResultClassifier.classify(result));
    }
}

impl<H: Deref<Target = Inner>> Drop for Call<H> {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.queue.release();
            holder.tell.event(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

pin_project! {
    /// Waits for a permit, for as long and in as long a queue as the bulkhead allows.
    ///
    /// Cancel-safe: dropping it leaves the queue, and a permit that was just handed to it goes to the next.
    pub(crate) struct Acquire<H>
    where
        H: Deref<Target = Inner>,
    {
        waiting: Waiting<H>,
        #[pin]
        sleep: Sleep,
        started: Nanos,
        cancelled: Cancelled<H>,
    }
}

impl<H: Deref<Target = Inner> + Clone> Acquire<H> {
    pub(crate) fn new(holder: H) -> Self {
        Self {
            waiting: Waiting::new(holder.clone(), holder.max_queue),
            sleep: tokio::time::sleep(holder.max_wait),
            started: holder.time.now(),
            cancelled: Cancelled(Some(holder)),
        }
    }
}

impl<H: Deref<Target = Inner> + Unpin> Future for Acquire<H> {
    type Output = Result<Call<H>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A permit that is there wins over the timer.
        let granted = match Pin::new(this.waiting).poll(cx) {
            Poll::Ready(granted) => granted.is_ok(),
            Poll::Pending => {
                ready!(this.sleep.poll(cx));
                let holder = this.cancelled.disarm();
                let rejection = Rejection::queue_timeout(holder.tell.name().clone(), holder.max_wait);
                return Poll::Ready(Err(holder.tell.reject(rejection)));
            }
        };
        let holder = this.cancelled.disarm();
        if !granted {
            return Poll::Ready(Err(holder.full()));
        }
        let slot = Slot::granted(holder);
        if let Some(holder) = &slot.0 {
            let waited = holder.time.now().saturating_since(*this.started);
            holder.tell.event(|| EventKind::PermitAwaited { waited });
        }
        Poll::Ready(Ok(slot.admit()))
    }
}

/// Says that the call was cancelled if it is dropped while it waits.
struct Cancelled<H: Deref<Target = Inner>>(Option<H>);

impl<H: Deref<Target = Inner>> Cancelled<H> {
    fn disarm(&mut self) -> H {
        self.0.take().expect("polled after it ended")
    }
}

impl<H: Deref<Target = Inner>> Drop for Cancelled<H> {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.tell.event(|| EventKind::Cancelled { admitted: false, elapsed: None });
        }
    }
}
