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

/// Opens a circuit for as long as the service's `Retry-After` asks, on a 429 or 503.
///
/// Place it inside the breaker's own layer. The breaker alone would first collect its own evidence;
/// this layer honors the service's `Retry-After` immediately, for all callers. That is right when
/// the header speaks for the whole service. It is wrong when a 429 is about one user of many: use
/// [`only_unavailable`](Self::only_unavailable), or a breaker per user. See
/// [`CircuitBreaker::honor_retry_after`].
///
/// Waits longer than [`at_most`](Self::at_most) (one minute by default) are shortened to it, so
/// that a mistaken header cannot cut off a dependency for a day.
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
    settings: StripedArc<HonorSettings>,
}

#[derive(Clone, Debug)]
struct HonorSettings {
    breaker: CircuitBreaker,
    at_most: Duration,
    on_throttled: bool,
}

impl HonorRetryAfterLayer {
    /// Opens `breaker` on a 429 or 503, for at most one minute.
    pub fn new(breaker: &CircuitBreaker) -> Self {
        let settings = HonorSettings { breaker: breaker.clone(), at_most: Duration::from_secs(60), on_throttled: true };
        Self { settings: StripedArc::new(settings) }
    }

    /// Sets the longest time for which the circuit is opened.
    pub fn at_most(self, limit: Duration) -> Self {
        let settings = HonorSettings { at_most: limit, ..(*self.settings).clone() };
        Self { settings: StripedArc::new(settings) }
    }

    /// Opens the circuit on a 503 only.
    pub fn only_unavailable(self) -> Self {
        let settings = HonorSettings { on_throttled: false, ..(*self.settings).clone() };
        Self { settings: StripedArc::new(settings) }
    }
}

impl HonorSettings {
    fn honor(&self, response: &impl ResponseHead) {
        let applies = match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => true,
            StatusCode::TOO_MANY_REQUESTS => self.on_throttled,
            _ => false,
        };
        if applies
            && let Some(wait) = hint::retry_after(response.headers())
            && !wait.is_zero()
        {
            self.breaker.honor_retry_after(wait.min(self.at_most));
        }
    }
}

impl<S> Layer<S> for HonorRetryAfterLayer {
    type Service = HonorRetryAfter<S>;

    fn layer(&self, inner: S) -> HonorRetryAfter<S> {
        HonorRetryAfter { inner, settings: self.settings.clone() }
    }
}

/// Service made by [`HonorRetryAfterLayer`].
#[derive(Clone, Debug)]
pub struct HonorRetryAfter<S> {
    inner: S,
    settings: StripedArc<HonorSettings>,
}

service_access!(HonorRetryAfter);

impl<S, Req> Service<Req> for HonorRetryAfter<S>
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

    // 2 read-modify-writes on this thread's reference count.
    fn call(&mut self, request: Req) -> Self::Future {
        HonorRetryAfterFuture { inner: self.inner.call(request), settings: self.settings.acquire_ref() }
    }
}

pin_project! {
    /// Future of [`HonorRetryAfter`].
    pub struct HonorRetryAfterFuture<F> {
        #[pin]
        inner: F,
        settings: StripedRef<HonorSettings>,
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
            this.settings.honor(response);
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for HonorRetryAfterFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HonorRetryAfterFuture").finish_non_exhaustive()
    }
}
