//! A call under guard of its in-flight state, and a future that may be rejected.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    in_flight::{CancelOnDrop, Complete, InFlight},
    leaf::{RejectCall, reject},
    panic_guard::{ServiceGuard, complete},
    service::{CallFuture, Cancel},
};
use crate::error::Rejection;

pin_project! {
    /// A call with a pattern's in-flight state.
    pub(crate) struct Guarded<C, K> {
        #[pin]
        call: C,
        // `None` once the call has completed, and for a call that bypasses the pattern.
        in_flight: Option<K>,
    }
}

impl<C, K> Guarded<C, K> {
    /// A call that has started; without in-flight state it bypasses the pattern. The state was
    /// guarded by [`StartingCall`](super::StartingCall) meanwhile.
    //
    // Not a closure that starts the call: closures are not reliably inlined, and each one that is
    // not costs a copy of the call, which is as long as the futures of all inner layers together.
    #[inline(always)]
    pub(crate) fn started(call: C, in_flight: Option<K>) -> Self {
        Self { call, in_flight }
    }
}

impl<C: RejectCall, K> RejectCall for Guarded<C, K> {
    #[inline(always)]
    fn rejected(rejection: Rejection) -> Self {
        Self { call: C::rejected(rejection), in_flight: None }
    }
}

impl<P: ?Sized, C, K> Cancel<P> for Guarded<C, K>
where
    C: Cancel<P>,
    K: InFlight<P>,
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        let this = self.project();
        // Cancelled after the inner call has been dropped, even if that panics.
        let _guard = this.in_flight.take().map(|in_flight| CancelOnDrop::new(shared, in_flight));
        this.call.cancel(shared);
    }
}

impl<P: ?Sized, C, K, T, E> CallFuture<P> for Guarded<C, K>
where
    C: CallFuture<P, Output = Result<T, E>>,
    K: Complete<P, T, E>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        let this = self.project();
        let guard = ServiceGuard::enter(shared, this.in_flight);
        this.call.poll(shared, cx, polled);
        guard.leave();
        if let Poll::Ready(result) = polled {
            complete(shared, this.in_flight, result.as_ref());
        }
    }

    #[inline(always)]
    fn wakes_at(&self) -> u64 {
        self.call.wakes_at()
    }
}

pin_project! {
    /// The future of a call, or its rejection. A rejected call owns no shared state.
    #[project = RejectableProj]
    pub(crate) enum Rejectable<F> {
        Started {
            #[pin]
            future: F,
        },
        Rejected {
            rejection: Option<Rejection>,
        },
    }
}

impl<F> Rejectable<F> {
    #[inline(always)]
    pub(crate) fn started(future: F) -> Self {
        Self::Started { future }
    }

    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { rejection: Some(rejection) }
    }
}

impl<F, T, E> Future for Rejectable<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            RejectableProj::Started { future } => future.poll(cx),
            RejectableProj::Rejected { rejection } => reject(rejection),
        }
    }
}
