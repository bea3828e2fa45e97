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
    guarded::{Entry, Guard, Held, Ticket, tell_admitted},
    hold::Hold,
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
    #[inline(never)]
    pub(crate) fn full(&self) -> Rejection {
        self.tell.reject(|name| Rejection::bulkhead_full(name, self.queue.permits().limit()))
    }

    /// Lets a call in that finds a permit.
    #[inline(always)]
    pub(crate) fn admit(&self) -> Option<Permitted> {
        self.queue.try_acquire().then(|| self.begin())
    }

    /// Lets a call in, or has it wait if it may.
    #[inline(always)]
    pub(crate) fn enter<H: Deref<Target = Self> + Clone>(
        &self,
        holder: impl FnOnce() -> H,
    ) -> Entry<Permitted, Acquire<H>> {
        match self.admit() {
            Some(permitted) => Entry::Now(Some(permitted)),
            None if self.may_wait() => Entry::Later(Acquire::new(holder())),
            None => Entry::Never(self.full()),
        }
    }

    /// A call begins with a permit that was taken for it. If the observer panics, the permit comes home.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Permitted {
        if self.tell.is_on() { tell_admitted(&self.tell, self, Permitted) } else { Permitted }
    }

    /// Whether a call that finds no free permit may wait for one.
    pub(crate) fn may_wait(&self) -> bool {
        !self.max_wait.is_zero() && self.max_queue > 0
    }
}

/// A permit that no call uses yet.
#[derive(Debug)]
pub(crate) struct Vacant;

impl Ticket<Inner> for Vacant {
    fn cancel(self, inner: &Inner) {
        inner.queue.release();
    }
}

/// A call's permit.
#[derive(Debug)]
pub(crate) struct Permitted;

impl Permitted {
    /// The call ended: the permit comes home now, however long the future's value is kept.
    #[inline(always)]
    pub(super) fn finish(self, inner: &Inner, verdict: Verdict) {
        inner.queue.release();
        inner.tell.event(|| EventKind::Completed { verdict, elapsed: None });
    }
}

/// What a call is lent.
pub(crate) trait Bounding {
    /// `None` when the bulkhead was left out of the stack, or the call was refused.
    fn bulkhead(&self) -> Option<&Inner>;
}

impl Bounding for Inner {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&Inner> {
        Some(self)
    }
}

impl Bounding for Option<Hold<Inner>> {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&Inner> {
        self.as_deref()
    }
}

impl<P: Bounding> Ticket<P> for Permitted {
    fn cancel(self, parts: &P) {
        if let Some(inner) = parts.bulkhead() {
            inner.queue.release();
            inner.tell.event(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

impl<P: Bounding, T, E> Guard<P, T, E> for Permitted {
    #[inline(always)]
    fn end(self, parts: &P, result: Result<&T, &E>) {
        if let Some(inner) = parts.bulkhead() {
            self.finish(inner, ResultClassifier.classify(result));
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
    /// To be used up at once: nothing gives a permit back that is dropped.
    type Output = Result<Permitted, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A permit that is there wins over the timer.
        let granted = match Pin::new(this.waiting).poll(cx) {
            Poll::Ready(granted) => granted.is_ok(),
            Poll::Pending => {
                ready!(this.sleep.poll(cx));
                let holder = this.cancelled.disarm();
                let rejection = holder.tell.reject(|name| Rejection::queue_timeout(name, holder.max_wait));
                return Poll::Ready(Err(rejection));
            }
        };
        let holder = this.cancelled.disarm();
        if !granted {
            return Poll::Ready(Err(holder.full()));
        }
        let held = Held::new(holder, Vacant);
        if let Some((inner, _)) = held.get() {
            let waited = inner.time.now().saturating_since(*this.started);
            inner.tell.event(|| EventKind::PermitAwaited { waited });
        }
        let (holder, Vacant) = held.release();
        Poll::Ready(Ok(holder.begin()))
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
