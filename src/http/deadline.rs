//! Deadlines propagated from hop to hop.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use tower_layer::Layer;
use tower_service::Service;

use super::RequestHead;
use crate::{clock, deadline};

/// The header that carries the time left for a call.
///
/// It carries a duration, not an instant, so clock skew does no harm. Each hop loses the time that the request spends on
/// the network.
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_rampart::{http::DeadlineHeader, timeout::Timeout};
///
/// let header = DeadlineHeader::default(); // x-request-timeout-ms
/// // In a client, innermost: it sees all outer limits, and each attempt sends its own.
/// let client = ServiceBuilder::new()
///     .layer(Timeout::new("inventory", Duration::from_secs(2)).layer())
///     .layer(header.send());
/// // In a server, outermost: the timeout inside enforces whichever limit is shorter, and the server's own calls see the time
/// // that is left.
/// let server = ServiceBuilder::new()
///     .layer(header.receive())
///     .layer(Timeout::new("api", Duration::from_secs(10)).layer());
/// # let _ = (client, server);
/// ```
#[derive(Clone, Debug)]
pub struct DeadlineHeader {
    name: HeaderName,
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Grpc,
    Millis,
}

impl DeadlineHeader {
    /// Uses gRPC's `grpc-timeout`.
    pub const fn grpc() -> Self {
        Self { name: HeaderName::from_static("grpc-timeout"), format: Format::Grpc }
    }

    /// Uses a header of this name, in milliseconds.
    pub const fn millis(name: HeaderName) -> Self {
        Self { name, format: Format::Millis }
    }

    /// Returns the limit in these headers; `None` if it is missing or malformed.
    pub fn read(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(&self.name)?.to_str().ok()?.trim();
        match self.format {
            Format::Millis => digits(text).map(Duration::from_millis),
            Format::Grpc => {
                let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
                let count = digits(count).filter(|_| count.len() <= 8)?;
                Some(match unit {
                    "H" => Duration::from_secs(count * 3600),
                    "M" => Duration::from_secs(count * 60),
                    "S" => Duration::from_secs(count),
                    "m" => Duration::from_millis(count),
                    "u" => Duration::from_micros(count),
                    "n" => Duration::from_nanos(count),
                    _ => return None,
                })
            }
        }
    }

    /// Writes the limit, rounded down, but never below the smallest value that the format can express.
    pub fn write(&self, limit: Duration, headers: &mut HeaderMap) {
        let value = match self.format {
            Format::Millis => HeaderValue::from(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)),
            Format::Grpc => {
                // The format allows at most eight digits.
                let fits = |count: u128| (count < 100_000_000).then_some(count);
                let text = if let Some(micros) = fits(limit.as_micros()) {
                    format!("{}u", micros.max(1))
                } else if let Some(millis) = fits(limit.as_millis()) {
                    format!("{millis}m")
                } else {
                    format!("{}S", limit.as_secs().min(99_999_999))
                };
                let Ok(value) = HeaderValue::try_from(text) else { return };
                value
            }
        };
        headers.insert(self.name.clone(), value);
    }

    /// Returns a layer that sends the time left until the current call's [`deadline`](crate::deadline), if it has one. A
    /// shorter limit already in the request is kept.
    pub fn send(&self) -> DeadlineSendLayer {
        DeadlineSendLayer { header: self.clone() }
    }

    /// Returns a layer that makes a request's limit the [deadline](crate::deadline::scope) of its call. The limit counts from
    /// `call`. Only the timeouts inside enforce it.
    pub fn receive(&self) -> DeadlineReceiveLayer {
        DeadlineReceiveLayer { header: self.clone() }
    }
}

impl Default for DeadlineHeader {
    /// Uses `x-request-timeout-ms`, in milliseconds.
    fn default() -> Self {
        Self::millis(HeaderName::from_static("x-request-timeout-ms"))
    }
}

fn digits(text: &str) -> Option<u64> {
    // `parse` would also accept a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
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

    // With a deadline, up to 2 clock reads: reading the time left starts outer timeouts that have not started yet.
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

/// Makes a request's limit the deadline of its call. Made by [`DeadlineHeader::receive`].
#[derive(Clone, Debug)]
pub struct DeadlineReceiveLayer {
    header: DeadlineHeader,
}

impl<S> Layer<S> for DeadlineReceiveLayer {
    type Service = DeadlineReceive<S>;

    fn layer(&self, inner: S) -> DeadlineReceive<S> {
        DeadlineReceive { inner, header: self.header.clone() }
    }
}

/// Service made by [`DeadlineReceiveLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineReceive<S> {
    inner: S,
    header: DeadlineHeader,
}

service_access!(DeadlineReceive);

impl<S, Req> Service<Req> for DeadlineReceive<S>
where
    S: Service<Req>,
    Req: RequestHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // With a limit, 1 clock read.
    fn call(&mut self, request: Req) -> Self::Future {
        let limit = self.header.read(request.headers());
        // A limit too large for the clock is no limit.
        let inner = match limit.and_then(|limit| clock::instant().checked_add(limit)) {
            Some(at) => Scoped::Until { scope: deadline::scope(at, deadline::within(at, || self.inner.call(request))) },
            None => Scoped::Unlimited { future: self.inner.call(request) },
        };
        DeadlineFuture { inner }
    }
}

pin_project_lite::pin_project! {
    /// Future of [`DeadlineReceive`].
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: Scoped<F>,
    }
}

pin_project_lite::pin_project! {
    #[project = ScopedProj]
    enum Scoped<F> {
        Until { #[pin] scope: deadline::Scope<F> },
        Unlimited { #[pin] future: F },
    }
}

impl<F: Future> Future for DeadlineFuture<F> {
    type Output = F::Output;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().inner.project() {
            ScopedProj::Until { scope } => scope.poll(cx),
            ScopedProj::Unlimited { future } => future.poll(cx),
        }
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").finish_non_exhaustive()
    }
}
