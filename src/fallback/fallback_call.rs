//! A call, and the fallback that may replace its result.

use std::{
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    Serve, When,
    inner::{FallbackInner, ObservedCall},
};
use crate::{
    call::{CallFuture, Cancel, CancelOnDrop, PanicGuard, ServiceGuard, complete},
    event::Served,
};

/// Makes the fallback of a call from its result.
pub(super) trait MakeFallback<V, T, E> {
    type Future: Future<Output = Result<T, E>>;

    fn make(self, serve: &V, result: Result<T, E>) -> Self::Future;

    /// The kind of fallback, for the event.
    fn kind(serve: &V) -> Served;
}

/// The part of a request that `Serve` has kept, for the fallback of a layer's call.
pub(super) struct Kept<K, Req> {
    kept: K,
    request: PhantomData<fn(Req)>,
}

impl<K, Req> Kept<K, Req> {
    pub(super) fn new(kept: K) -> Self {
        Self { kept, request: PhantomData }
    }
}

impl<V, Req, T, E> MakeFallback<V, T, E> for Kept<V::Kept, Req>
where
    V: Serve<Req, T, E>,
{
    type Future = V::Future;

    fn make(self, serve: &V, result: Result<T, E>) -> V::Future {
        serve.serve(self.kept, result)
    }

    fn kind(serve: &V) -> Served {
        serve.kind()
    }
}

/// The function of a call through [`FallbackLayer::run`](super::FallbackLayer::run).
pub(super) struct Function<F>(pub(super) F);

impl<V, F, Fut, T, E> MakeFallback<V, T, E> for Function<F>
where
    F: FnOnce(Result<T, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Future = Fut;

    fn make(self, _serve: &V, result: Result<T, E>) -> Fut {
        (self.0)(result)
    }

    fn kind(_serve: &V) -> Served {
        Served::Function
    }
}

pin_project! {
    /// A call `C`, and the fallback `G` that `M` makes.
    ///
    /// The fallback gives the call its result, so a panic of the fallback is a failure of the call,
    /// as one of the service is.
    #[project = FallbackCallProj]
    pub(crate) struct FallbackCall<C, M, G> {
        #[pin]
        phase: Phase<C, G>,
        // `None` once the fallback is made.
        make: Option<M>,
        // `None` once the call has completed.
        in_flight: Option<ObservedCall>,
    }
}

pin_project! {
    #[project = PhaseProj]
    enum Phase<C, G> {
        Calling { #[pin] call: C },
        Serving { #[pin] future: G },
        // Cancelled.
        Done,
    }
}

impl<C, M, G> FallbackCall<C, M, G> {
    #[inline(always)]
    pub(super) fn started(call: C, make: M, in_flight: Option<ObservedCall>) -> Self {
        Self { phase: Phase::Calling { call }, make: Some(make), in_flight }
    }
}

impl<V, W, C, M, G> Cancel<FallbackInner<V, W>> for FallbackCall<C, M, G>
where
    C: Cancel<FallbackInner<V, W>>,
{
    fn cancel(self: Pin<&mut Self>, shared: &FallbackInner<V, W>) {
        let mut this = self.project();
        // Cancelled after the inner call has been dropped, even if that panics.
        let _guard = this.in_flight.take().map(|in_flight| CancelOnDrop::new(shared, in_flight));
        if let PhaseProj::Calling { call } = this.phase.as_mut().project() {
            call.cancel(shared);
        }
        this.phase.set(Phase::Done);
    }
}

impl<V, W, C, M, T, E> CallFuture<FallbackInner<V, W>> for FallbackCall<C, M, M::Future>
where
    C: CallFuture<FallbackInner<V, W>, Output = Result<T, E>>,
    M: MakeFallback<V, T, E>,
    W: When<T, E>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, shared: &FallbackInner<V, W>, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        let mut this = self.project();
        if let PhaseProj::Calling { call } = this.phase.as_mut().project() {
            let guard = ServiceGuard::enter(shared, this.in_flight);
            call.poll(shared, cx, polled);
            guard.leave();
            let Poll::Ready(result) = polled else { return };
            let guard = PanicGuard::new(shared, this.in_flight);
            let is_replaced = shared.when.applies(result.as_ref());
            guard.disarm();
            if !is_replaced {
                return complete(shared, this.in_flight, result.as_ref());
            }
            if let Poll::Ready(result) = mem::replace(polled, Poll::Pending) {
                this.make_fallback(shared, result);
            }
        }
        *polled = this.poll_fallback(shared, cx);
    }
}

impl<C, M, G> FallbackCallProj<'_, C, M, G> {
    #[inline(never)]
    fn make_fallback<V, W, T, E>(&mut self, shared: &FallbackInner<V, W>, result: Result<T, E>)
    where
        M: MakeFallback<V, T, E, Future = G>,
    {
        let mut guard = PanicGuard::new(shared, self.in_flight);
        let make = self.make.take().expect("polled after it completed");
        guard.enter_service();
        let future = make.make(&shared.serve, result);
        guard.leave_service();
        self.phase.set(Phase::Serving { future });
        guard.disarm();
    }

    #[inline(never)]
    fn poll_fallback<V, W, T, E>(&mut self, shared: &FallbackInner<V, W>, cx: &mut Context<'_>) -> Poll<Result<T, E>>
    where
        M: MakeFallback<V, T, E, Future = G>,
        G: Future<Output = Result<T, E>>,
    {
        let PhaseProj::Serving { future } = self.phase.as_mut().project() else {
            unreachable!("polled after it was dropped")
        };
        let mut guard = PanicGuard::new(shared, self.in_flight);
        guard.enter_service();
        let polled = future.poll(cx);
        guard.leave_service();
        if polled.is_ready() && guard.in_flight().is_some() {
            shared.served(M::kind(&shared.serve));
        }
        guard.disarm();
        if let Poll::Ready(result) = &polled {
            complete(shared, self.in_flight, result.as_ref());
        }
        polled
    }
}
