//! Future of [`FallbackService`](super::FallbackService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    Serve, When,
    inner::{FallbackInner, ObservedCall},
};
use crate::shared::striped::StripedRef;

pin_project! {
    /// A call, and the fallback that may replace its result.
    ///
    /// Dropping it cancels whichever of the two is running.
    pub struct ResponseFuture<F, Req, T, E, V, W>
    where
        V: Serve<Req, T, E>,
    {
        #[pin]
        state: FallbackState<F, V::Future>,
        kept: Option<V::Kept>,
        call: ObservedCall<StripedRef<FallbackInner<V, W>>>,
    }
}

pin_project! {
    #[project = FallbackStateProj]
    enum FallbackState<F, G> {
        Calling { #[pin] future: F },
        Serving { #[pin] future: G },
    }
}

impl<F, Req, T, E, V, W> ResponseFuture<F, Req, T, E, V, W>
where
    V: Serve<Req, T, E>,
{
    pub(super) fn new(future: F, kept: V::Kept, call: ObservedCall<StripedRef<FallbackInner<V, W>>>) -> Self {
        Self { state: FallbackState::Calling { future }, kept: Some(kept), call }
    }
}

impl<F, Req, T, E, V, W> Future for ResponseFuture<F, Req, T, E, V, W>
where
    F: Future<Output = Result<T, E>>,
    V: Serve<Req, T, E>,
    W: When<T, E>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let serving = match this.state.as_mut().project() {
                FallbackStateProj::Calling { future } => {
                    let result = ready!(future.poll(cx));
                    let fallback = this.call.shared();
                    if !fallback.when.applies(result.as_ref()) {
                        this.call.complete(&result);
                        return Poll::Ready(result);
                    }
                    fallback.serve.serve(this.kept.take().expect("polled after it completed"), result)
                }
                FallbackStateProj::Serving { future } => {
                    let result = ready!(future.poll(cx));
                    this.call.fallback_served(this.call.shared().serve.kind());
                    this.call.complete(&result);
                    return Poll::Ready(result);
                }
            };
            this.state.set(FallbackState::Serving { future: serving });
        }
    }
}

impl<F, Req, T, E, V, W> fmt::Debug for ResponseFuture<F, Req, T, E, V, W>
where
    V: Serve<Req, T, E>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
