//! The state of a breaker's service between `poll_ready` and `call`.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use super::{
    CircuitBreaker,
    admitted::{AdmittedCall, ReservedProbe},
    inner::CircuitBreakerInner,
};
use crate::{
    call::CancelOnDrop,
    error::Rejection,
    shared::{striped::StripedRef, waker_list::WakerKey},
    state::circuit::PeekedAdmission,
};

#[derive(Default)]
pub(crate) enum ReadyState {
    #[default]
    Nothing,
    /// The circuit rejects, so the inner service was not polled: `call` must not reach it.
    Rejecting,
    /// A probe slot is reserved (backpressure only).
    Probe(CancelOnDrop<StripedRef<CircuitBreakerInner>, ReservedProbe>),
    /// The task waits for a change of the circuit.
    Waiting(Box<WaitForChange>),
}

/// A task's registration with the circuit's waiters.
pub(crate) struct WaitForChange {
    breaker: CircuitBreaker,
    key: Option<WakerKey>,
    /// Wakes the task at the end of the open time, or when a reserved probe slot lapses. Only a
    /// task that waits for it has one (backpressure only).
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Drop for WaitForChange {
    fn drop(&mut self) {
        self.breaker.0.waiters.deregister(&mut self.key);
    }
}

impl ReadyState {
    /// Registers the task to be woken when the circuit changes. The caller must check the circuit
    /// afterwards: a change that the check does not see wakes the task.
    fn wait(&mut self, breaker: &CircuitBreaker, cx: &Context<'_>) -> &mut WaitForChange {
        if !matches!(self, Self::Waiting(_)) {
            *self = Self::Waiting(Box::new(WaitForChange { breaker: breaker.clone(), key: None, sleep: None }));
        }
        let Self::Waiting(waiting) = self else { unreachable!("it was just set") };
        breaker.0.waiters.register(&mut waiting.key, cx.waker());
        waiting
    }

    /// Ready when the inner service is, and immediately while the circuit rejects.
    #[inline(always)]
    pub(crate) fn poll_rejecting<E>(
        &mut self,
        breaker: &CircuitBreaker,
        cx: &mut Context<'_>,
        poll_inner: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), E>>,
    ) -> Poll<Result<(), E>> {
        // An inner service that is stuck must not delay the rejection.
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

    /// The inner service is not ready. It must not delay the rejection either if the circuit opens
    /// while the task waits.
    #[inline(never)]
    fn opens_meanwhile(&mut self, breaker: &CircuitBreaker, cx: &Context<'_>) -> bool {
        self.wait(breaker, cx);
        breaker.0.rejects()
    }

    /// Admits or rejects the call that follows [`poll_rejecting`](Self::poll_rejecting).
    #[inline(always)]
    pub(crate) fn admit_rejecting(&mut self, breaker: &CircuitBreakerInner) -> Result<AdmittedCall, Rejection> {
        self.admit_rejecting_as(breaker, Ok, Err)
    }

    /// Admits the call that follows [`poll_rejecting`](Self::poll_rejecting) if the circuit was and
    /// is closed.
    #[inline(always)]
    pub(crate) fn try_admit_fast(&self, breaker: &CircuitBreakerInner) -> Option<AdmittedCall> {
        if matches!(self, Self::Nothing) { breaker.try_admit_fast() } else { None }
    }

    /// As [`admit_rejecting`](Self::admit_rejecting), and makes an `R` of it.
    #[inline(always)]
    pub(crate) fn admit_rejecting_as<R>(
        &mut self,
        breaker: &CircuitBreakerInner,
        admit: impl FnOnce(AdmittedCall) -> R,
        reject: impl FnOnce(Rejection) -> R,
    ) -> R {
        match self {
            Self::Nothing => breaker.admit_as(admit, reject),
            Self::Rejecting => self.reject_as(breaker, reject),
            Self::Probe(_) | Self::Waiting(_) => {
                self.clear();
                breaker.admit_as(admit, reject)
            }
        }
    }

    #[inline(never)]
    fn reject_as<R>(&mut self, breaker: &CircuitBreakerInner, reject: impl FnOnce(Rejection) -> R) -> R {
        *self = Self::Nothing;
        breaker.reject_as(reject)
    }

    /// Ready when the circuit would admit a call. Reserves a probe slot if the call would be a
    /// probe.
    pub(crate) fn poll_admitting(&mut self, breaker: &CircuitBreaker, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &*breaker.0;
        loop {
            match self {
                Self::Probe(probe) => {
                    if probe.in_flight_mut().renew(inner) {
                        return Poll::Ready(());
                    }
                    *self = Self::Nothing;
                }
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
                // If there is none, the circuit has closed meanwhile or another caller took the
                // slot: check again.
                PeekedAdmission::AdmitProbe => self.reserve_probe(breaker),
                PeekedAdmission::Reject { .. } if inner.has_lapsed_probe() => self.reserve_probe(breaker),
                PeekedAdmission::Reject { until } => {
                    let Self::Waiting(waiting) = self else {
                        self.wait(breaker, cx);
                        continue;
                    };
                    let Some(until) = [until, inner.next_lapse()].into_iter().flatten().min() else {
                        return Poll::Pending;
                    };
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

    fn reserve_probe(&mut self, breaker: &CircuitBreaker) {
        if let Some(reserved) = ReservedProbe::new(&breaker.0) {
            *self = Self::Probe(CancelOnDrop::new(breaker.0.acquire_ref(), reserved));
        }
    }

    /// Admits or rejects the call that follows [`poll_admitting`](Self::poll_admitting).
    pub(crate) fn admit_admitting(&mut self, breaker: &CircuitBreakerInner) -> Result<AdmittedCall, Rejection> {
        match mem::take(self) {
            Self::Probe(reserved) => reserved.disarm().1.admit(breaker),
            _ => breaker.admit(),
        }
    }
}
