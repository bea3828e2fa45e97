//! A call under guard of its in-flight state, and a call that may be rejected.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    in_flight::{CancelOnDrop, Complete, InFlight},
    panic_guard::{ServiceGuard, complete},
    service::{CallFuture, Cancel},
};
use crate::{deadline::NEVER, error::Rejection};

pin_project! {
    /// A call with a pattern's in-flight state, or its rejection.
    #[project = GuardedProj]
    pub(crate) enum Guarded<C, K> {
        Calling {
            #[pin]
            call: C,
            // `None` once the call has completed, and for a call that bypasses the pattern.
            in_flight: Option<K>,
        },
        Rejected {
            rejection: Option<Rejection>,
        },
        // Cancelled.
        Done,
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
        Self::Calling { call, in_flight }
    }

    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { rejection: Some(rejection) }
    }
}

impl<P: ?Sized, C, K> Cancel<P> for Guarded<C, K>
where
    C: Cancel<P>,
    K: InFlight<P>,
{
    fn cancel(mut self: Pin<&mut Self>, shared: &P) {
        if let GuardedProj::Calling { call, in_flight } = self.as_mut().project() {
            // Cancelled after the inner call has been dropped, even if that panics.
            let _guard = in_flight.take().map(|in_flight| CancelOnDrop::new(shared, in_flight));
            call.cancel(shared);
            self.set(Self::Done);
        }
    }
}

impl<P: ?Sized, C, K, T, E> CallFuture<P> for Guarded<C, K>
where
    C: CallFuture<P, Output = Result<T, E>>,
    K: Complete<P, T, E>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        match self.project() {
            GuardedProj::Calling { call, in_flight } => {
                let guard = ServiceGuard::enter(shared, in_flight);
                call.poll(shared, cx, polled);
                guard.leave();
                if let Poll::Ready(result) = polled {
                    complete(shared, in_flight, result.as_ref());
                }
            }
            GuardedProj::Rejected { rejection } => *polled = reject(rejection),
            GuardedProj::Done => unreachable!("polled after it was dropped"),
        }
    }

    fn wakes_at(&self) -> u64 {
        match self {
            Self::Calling { call, .. } => call.wakes_at(),
            Self::Rejected { .. } | Self::Done => NEVER,
        }
    }
}

#[inline(always)]
fn reject<T, E: From<Rejection>>(rejection: &mut Option<Rejection>) -> Poll<Result<T, E>> {
    Poll::Ready(Err(rejection.take().expect("polled after it completed").into()))
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
