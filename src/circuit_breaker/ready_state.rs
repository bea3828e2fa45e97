//! What `poll_ready` has come to, between it and `call`.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use super::{
    CircuitBreaker,
    inner::{AdmittedCall, CircuitBreakerInner, UnusedAdmission},
};
use crate::{
    call::CancelOnDrop, error::Rejection, shared::striped::StripedRef, shared::waker_list,
    state::circuit::PeekedAdmission,
};

#[derive(Default)]
pub(crate) enum ReadyState {
    #[default]
    Nothing,
    /// The circuit refuses, so the service within was not asked: `call` must not reach it.
    Rejecting,
    /// A place for a probe is reserved (backpressure only).
    Probe(CancelOnDrop<StripedRef<CircuitBreakerInner>, UnusedAdmission>),
    /// WaitForChange for a change of the circuit.
    Waiting(Box<WaitForChange>),
}

/// Whether a reserved place still admits.
pub(crate) fn is_current(held: &CancelOnDrop<StripedRef<CircuitBreakerInner>, UnusedAdmission>) -> bool {
    held.get().is_some_and(|(inner, place)| place.is_current(inner))
}

/// A task that waits for the circuit.
pub(crate) struct WaitForChange {
    breaker: CircuitBreaker,
    place: Option<waker_list::WakerKey>,
    /// Kept for its wake-up at the end of the open time. Made by a task that waits for that (backpressure only).
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Drop for WaitForChange {
    fn drop(&mut self) {
        self.breaker.0.waiters.deregister(&mut self.place);
    }
}

impl ReadyState {
    /// Has the task woken when the circuit changes. Look at the circuit afterwards: a change that the look does not see
    /// wakes the task.
    fn wait(&mut self, breaker: &CircuitBreaker, cx: &Context<'_>) -> &mut WaitForChange {
        if !matches!(self, Self::Waiting(_)) {
            *self = Self::Waiting(Box::new(WaitForChange { breaker: breaker.clone(), place: None, sleep: None }));
        }
        let Self::Waiting(waiting) = self else { unreachable!("it was just set") };
        breaker.0.waiters.register(&mut waiting.place, cx.waker());
        waiting
    }

    /// Ready when the service within is, and at once while the circuit refuses.
    #[inline(always)]
    pub(crate) fn poll_rejecting<E>(
        &mut self,
        breaker: &CircuitBreaker,
        cx: &mut Context<'_>,
        poll_inner: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), E>>,
    ) -> Poll<Result<(), E>> {
        // A service that is stuck must not delay the refusal.
        if !breaker.0.rejects() {
            if let Poll::Ready(ready) = poll_inner(cx) {
                self.clear();
                return Poll::Ready(ready);
            }
            if !self.opens_meanwhile(breaker, cx) {
                return Poll::Pending;
            }
        }
        *self = Self::Rejecting;
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn clear(&mut self) {
        if !matches!(self, Self::Nothing) {
            *self = Self::Nothing;
        }
    }

    /// The service within is not ready; nor must it delay the refusal when the circuit opens while the task waits.
    #[inline(never)]
    fn opens_meanwhile(&mut self, breaker: &CircuitBreaker, cx: &Context<'_>) -> bool {
        self.wait(breaker, cx);
        breaker.0.rejects()
    }

    /// For `call`, after [`poll_rejecting`](Self::poll_rejecting).
    #[inline(always)]
    pub(crate) fn admit_rejecting(&mut self, inner: &CircuitBreakerInner) -> Result<AdmittedCall, Rejection> {
        match self {
            Self::Nothing => inner.admit(),
            _ => self.admit_or_reject(inner),
        }
    }

    #[inline(never)]
    fn admit_or_reject(&mut self, inner: &CircuitBreakerInner) -> Result<AdmittedCall, Rejection> {
        match mem::take(self) {
            Self::Rejecting => Err(inner.reject()),
            _ => inner.admit(),
        }
    }

    /// Ready when the circuit would admit, with a place reserved if that is for a probe.
    pub(crate) fn poll_admitting(&mut self, breaker: &CircuitBreaker, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &*breaker.0;
        loop {
            match self {
                Self::Probe(held) if is_current(held) => return Poll::Ready(()),
                Self::Probe(_) => *self = Self::Nothing,
                Self::Waiting(_) => {
                    self.wait(breaker, cx);
                }
                Self::Nothing | Self::Rejecting => {}
            }
            match inner.circuit.peek_admission(|| inner.now()) {
                PeekedAdmission::Admit => {
                    *self = Self::Nothing;
                    return Poll::Ready(());
                }
                PeekedAdmission::AdmitProbe => {
                    // If there is none it has closed meanwhile, or somebody was faster: look again.
                    if let Some(place) = inner.take_probe() {
                        *self = Self::Probe(CancelOnDrop::new(breaker.0.acquire_ref(), place));
                    }
                }
                PeekedAdmission::Reject { until } => {
                    let Self::Waiting(waiting) = self else {
                        self.wait(breaker, cx);
                        continue;
                    };
                    let Some(until) = until else { return Poll::Pending };
                    let left = until.saturating_since(inner.now());
                    let mut sleep = Box::pin(tokio::time::sleep(left));
                    if sleep.as_mut().poll(cx).is_pending() {
                        waiting.sleep = Some(sleep);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
