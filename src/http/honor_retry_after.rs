use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::StatusCode;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseHead, hint};
use crate::{
    circuit_breaker::CircuitBreaker,
    shared::striped::{StripedArc, StripedRef},
};

/// Opens a circuit for as long as the server asks to be left alone: on a 429 or 503 with `Retry-After`.
///
/// Goes inside of the breaker's own layer. What the server asks is done at once, for all who call it, and for as long as
/// it asks, where the breaker by itself would collect its own evidence first. Right where the hint speaks for the whole
/// server; wrong where a 429 is about one user of many: [`only_unavailable`](Self::only_unavailable), or a breaker for
/// each. See [`CircuitBreaker::honor_retry_after`].
///
/// A longer wait than `at_most` (a minute by default) is cut to it, so that a mistaken header cannot shut a dependency off
/// for a day.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{circuit_breaker::CircuitBreaker, http::{HonorRetryAfterLayer, HttpClassifier}};
///
/// let breaker = CircuitBreaker::new("inventory");
/// let layers = ServiceBuilder::new()
///     .layer(breaker.layer().classify(HttpClassifier::new()))
///     .layer(HonorRetryAfterLayer::new(&breaker));
/// # let _ = layers;
/// ```
#[derive(Clone, Debug)]
pub struct HonorRetryAfterLayer {
    settings: StripedArc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    breaker: CircuitBreaker,
    at_most: Duration,
    throttled: bool,
}

impl HonorRetryAfterLayer {
    /// Opens `breaker` on a 429 or 503, for up to a minute.
    pub fn new(breaker: &CircuitBreaker) -> Self {
        let settings = Settings { breaker: breaker.clone(), at_most: Duration::from_secs(60), throttled: true };
        Self { settings: StripedArc::new(settings) }
    }

    /// The longest time it opens the circuit for.
    pub fn at_most(self, limit: Duration) -> Self {
        let settings = Settings { at_most: limit, ..(*self.settings).clone() };
        Self { settings: StripedArc::new(settings) }
    }

    /// On a 503 only.
    pub fn only_unavailable(self) -> Self {
        let settings = Settings { throttled: false, ..(*self.settings).clone() };
        Self { settings: StripedArc::new(settings) }
    }
}

impl Settings {
    fn look(&self, response: &impl ResponseHead) {
        let asks = match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => true,
            StatusCode::TOO_MANY_REQUESTS => self.throttled,
            _ => false,
        };
        if asks
            && let Some(wait) = hint::retry_after(response.headers())
            && !wait.is_zero()
        {
            self.breaker.honor_retry_after(wait.min(self.at_most));
        }
    }
}

impl<S> Layer<S> for HonorRetryAfterLayer {
    type Service = HoldOff<S>;

    fn layer(&self, inner: S) -> HoldOff<S> {
        HoldOff { inner, settings: self.settings.clone() }
    }
}

/// Service made by [`HonorRetryAfterLayer`].
#[derive(Clone, Debug)]
pub struct HoldOff<S> {
    inner: S,
    settings: StripedArc<Settings>,
}

service_access!(HoldOff);

impl<S, Req> Service<Req> for HoldOff<S>
where
    S: Service<Req>,
    S::Response: ResponseHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HonorRetryAfterFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 RMWs on this thread's reference count.
    fn call(&mut self, request: Req) -> Self::Future {
        HonorRetryAfterFuture { inner: self.inner.call(request), settings: self.settings.acquire_ref() }
    }
}

pin_project! {
    /// Future of [`HoldOff`].
    pub struct HonorRetryAfterFuture<F> {
        #[pin]
        inner: F,
        settings: StripedRef<Settings>,
    }
}

impl<F, T, E> Future for HonorRetryAfterFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseHead,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Ok(response) = &result {
            this.settings.look(response);
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for HonorRetryAfterFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HonorRetryAfterFuture").finish_non_exhaustive()
    }
}
