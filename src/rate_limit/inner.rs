//! What all handles and futures of one limiter share, and the life of one call in it.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::Rate;
use crate::{
    classify::{Classify, ResultClassifier, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventKind, Tell},
    guarded::Guard,
    state::gcra::{Gcra, Refusal, Slot},
};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) gcra: Gcra,
    /// As it was asked for. Locked by those who change or look at it, not by calls.
    pub(super) rate: Mutex<Rate>,
    pub(super) max_wait: Duration,
    pub(super) tell: Tell,
    pub(super) time: TimeSource,
}

impl Inner {
    pub(super) fn now(&self) -> Nanos {
        self.time.now()
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Rejection {
        let retry_after = match refusal {
            Refusal::Wait(wait) => Some(wait),
            Refusal::Never => None,
        };
        let limit = self.gcra.params().burst();
        self.tell.reject(Rejection::rate_limited(self.tell.name().clone(), retry_after, limit))
    }

    /// Takes tokens that are there now, for good.
    pub(super) fn check(&self, cost: u32) -> Result<(), Rejection> {
        self.gcra.check(self.now(), cost).map_err(|refusal| self.refuse(refusal))
    }

    /// Takes tokens that are there now, and may be given back.
    pub(super) fn take(&self, cost: u32) -> Result<Slot, Rejection> {
        match self.gcra.reserve(self.now(), cost, Duration::ZERO) {
            Ok((_, slot)) => Ok(slot),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }
}

/// Tokens that no call uses yet. Dropping them gives them back.
#[derive(Debug)]
pub(super) struct Tokens<H: Deref<Target = Inner>>(Option<(H, Slot)>);

impl<H: Deref<Target = Inner>> Tokens<H> {
    pub(super) fn new(holder: H, slot: Slot) -> Self {
        Self(Some((holder, slot)))
    }

    /// They are used.
    pub(super) fn spend(mut self) -> H {
        self.0.take().expect("tokens are spent once").0
    }
}

impl<H: Deref<Target = Inner>> Drop for Tokens<H> {
    fn drop(&mut self) {
        if let Some((holder, slot)) = self.0.take() {
            holder.gcra.cancel(slot);
        }
    }
}

/// A call that was let in, for those who listen. Nothing is to be released at its end.
#[derive(Debug)]
pub(crate) struct Call<H: Deref<Target = Inner>>(Option<H>);

impl<H: Deref<Target = Inner>> Call<H> {
    /// The call begins. A limiter without an observer holds nothing for it.
    pub(super) fn begin(inner: &Inner, holder: impl FnOnce() -> H) -> Self {
        let call = Self(inner.tell.is_on().then(holder));
        inner.tell.event(|| EventKind::Admitted);
        call
    }

    fn finish(&mut self, verdict: Verdict) {
        if let Some(holder) = self.0.take() {
            holder.tell.event(|| EventKind::Completed { verdict, elapsed: None });
        }
    }

    pub(super) fn cancel(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.tell.event(|| EventKind::Cancelled { admitted: true, elapsed: None });
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
        self.cancel();
    }
}

pin_project! {
    /// Waits until the tokens that were reserved are due.
    ///
    /// Cancel-safe: dropping it gives them back.
    pub(crate) struct Pace<H>
    where
        H: Deref<Target = Inner>,
    {
        tokens: Waiting<H>,
        #[pin]
        sleep: Sleep,
        wait: Duration,
    }
}

impl<H: Deref<Target = Inner>> Pace<H> {
    pub(super) fn new(holder: H, slot: Slot, wait: Duration) -> Self {
        let tokens = Waiting(Some(Tokens::new(holder, slot)));
        Self { tokens, sleep: tokio::time::sleep(wait), wait }
    }
}

impl<H: Deref<Target = Inner> + Clone> Future for Pace<H> {
    type Output = Result<Call<H>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.sleep.poll(cx));
        let holder = this.tokens.0.take().expect("polled after it ended").spend();
        let waited = *this.wait;
        holder.tell.event(|| EventKind::PermitAwaited { waited });
        Poll::Ready(Ok(Call::begin(&holder, || holder.clone())))
    }
}

/// Says that the call was cancelled if it is dropped while it waits.
struct Waiting<H: Deref<Target = Inner>>(Option<Tokens<H>>);

impl<H: Deref<Target = Inner>> Drop for Waiting<H> {
    fn drop(&mut self) {
        let Some(mut tokens) = self.0.take() else { return };
        if let Some((holder, slot)) = tokens.0.take() {
            holder.gcra.cancel(slot);
            holder.tell.event(|| EventKind::Cancelled { admitted: false, elapsed: None });
        }
    }
}
