use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::header::DeadlineHeader;
use crate::{deadline, http::RequestHead};

impl DeadlineHeader {
    /// Returns a layer that sends the time left until the current call's
    /// [`deadline`](crate::deadline), if it has one. A shorter limit already in the request is
    /// kept.
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
    Req: RequestHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // With a deadline, up to 2 clock reads: reading the time left starts outer timeouts that have
    // not started yet.
    fn call(&mut self, mut request: Req) -> S::Future {
        if let Some(left) = deadline::remaining() {
            let own = self.header.read(request.headers());
            if own.is_none_or(|own| left < own) {
                self.header.write(left, request.headers_mut());
            }
        }
        self.inner.call(request)
    }
}
