use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::header::DeadlineHeader;
use crate::{
    clock, deadline,
    error::{AsRejection, FromRejection, Rejection},
    http::{CLIENT, ErrorOrigin, RequestHead, TransportError},
    state::time::nanos_of,
};

impl DeadlineHeader {
    /// Returns a layer that sends the time left until the current call's
    /// [`deadline`](crate::deadline), if it has one. A shorter limit already in the request is
    /// kept.
    ///
    /// A client may enforce the limit itself, as tonic's channel does. If it ends a call at the
    /// limit, the layer returns [`Rejection::TimedOut`] of the timeout `client`, as an outer
    /// [`Timeout`](crate::timeout) would have done a moment later. It is [cut
    /// short](Rejection::TimedOut::cut_short) if the limit was that of the caller: of a
    /// [`scope`](crate::deadline::scope), or a limit in the request that was shorter than the time
    /// left.
    pub fn send(&self) -> DeadlineSendLayer {
        DeadlineSendLayer { header: self.clone() }
    }
}

/// Sends the time left to the service. Made by [`DeadlineHeader::send`].
#[derive(Clone, Debug)]
pub struct DeadlineSendLayer {
    header: DeadlineHeader,
}

impl<S> Layer<S> for DeadlineSendLayer {
    type Service = DeadlineSend<S>;

    fn layer(&self, inner: S) -> DeadlineSend<S> {
        DeadlineSend { inner, header: self.header.clone() }
    }
}

/// Service made by [`DeadlineSendLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineSend<S> {
    inner: S,
    header: DeadlineHeader,
}

service_access!(DeadlineSend);

impl<S, Req> Service<Req> for DeadlineSend<S>
where
    S: Service<Req>,
    S::Error: TransportError + AsRejection + FromRejection,
    Req: RequestHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineSendFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // With a deadline or a limit in the request, up to 2 clock reads: reading the time left starts
    // outer timeouts that have not started yet.
    fn call(&mut self, mut request: Req) -> Self::Future {
        let (own, deadline) = (self.header.read(request.headers()), deadline::current_nanos());
        let limit = if own.is_none() && deadline == deadline::NEVER {
            None
        } else {
            let now = clock::nanos();
            let left = (deadline != deadline::NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(now)));
            match (own, left) {
                (Some(own), left) if left.is_none_or(|left| own <= left) => {
                    let at = now.saturating_add(nanos_of(own));
                    Some(SentLimit { after: own, at, is_requests: left.is_some_and(|left| own < left) })
                }
                (_, left) => left.map(|left| {
                    self.header.write(left, request.headers_mut());
                    SentLimit { after: left, at: deadline, is_requests: false }
                }),
            }
        };
        DeadlineSendFuture { inner: self.inner.call(request), limit }
    }
}

/// The limit that a request was sent with.
#[derive(Clone, Copy, Debug)]
struct SentLimit {
    after: Duration,
    /// When it expires, in nanoseconds.
    at: u64,
    /// Whether it came with the request and is shorter than the time left.
    is_requests: bool,
}

impl SentLimit {
    /// Returns the rejection of a call that the client ended at this limit.
    fn rejection<E: TransportError + AsRejection>(self, error: &E) -> Option<Rejection> {
        if error.origin() != ErrorOrigin::TimedOut || !deadline::is_over(self.at) {
            return None;
        }
        // The rejection of a timeout inside stands.
        if error.as_rejection().is_some_and(|rejection| *rejection.name() != CLIENT) {
            return None;
        }
        let cut_short = self.is_requests || deadline::callers_has_passed();
        Some(if cut_short {
            Rejection::cut_short(CLIENT, self.after)
        } else {
            Rejection::timed_out(CLIENT, self.after, true)
        })
    }
}

pin_project! {
    /// Future of [`DeadlineSend`].
    pub struct DeadlineSendFuture<F> {
        #[pin]
        inner: F,
        limit: Option<SentLimit>,
    }
}

impl<F, T, E> Future for DeadlineSendFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: TransportError + AsRejection + FromRejection,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(result.map_err(|error| match this.limit.and_then(|limit| limit.rejection(&error)) {
            Some(rejection) => rejection.into(),
            None => error,
        }))
    }
}

impl<F> fmt::Debug for DeadlineSendFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineSendFuture").finish_non_exhaustive()
    }
}
