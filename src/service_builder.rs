//! The patterns as methods of `tower::ServiceBuilder`.

use tower::{ServiceBuilder, layer::util::Stack};

use crate::{
    bulkhead::{Bulkhead, BulkheadLayer},
    circuit_breaker::{CircuitBreaker, CircuitBreakerLayer},
    error::{AdaptErrorLayer, Rejection, RespondLayer},
    fallback::FallbackLayer,
    rate_limit::{RateLimitLayer, RateLimiter},
    retry::{Retry, RetryLayer},
    timeout::{Timeout, TimeoutLayer},
};

/// Methods of [`ServiceBuilder`] that add the patterns, such as `.bulkhead(&bulkhead)`.
///
/// Each adds the pattern's default layer; for another readiness mode or setting use `layer`, as in
/// `.layer(breaker.layer().backpressure())`. Names differ where `ServiceBuilder` has a method of
/// its own (`timeout`, `retry`, `rate_limit`).
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_rampart::{
///     BoxError, DefaultClassifier, ServiceBuilderExt, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, retry::Retry, timeout::Timeout,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = ServiceBuilder::new()
///     .time_limit(&Timeout::new("search", Duration::from_secs(2)))
///     .retries(&Retry::attempts("search", 3)?, DefaultClassifier)
///     .circuit_breaker(&CircuitBreaker::new("search"), DefaultClassifier)
///     .bulkhead(&Bulkhead::new("search", 32)?)
///     .service_fn(|query: String| async move { Ok::<_, BoxError>(query.len()) });
/// assert_eq!(service.oneshot("tower".to_owned()).await?, 5);
/// # Ok(()) }
/// ```
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// Rejects calls while the circuit is open: [`CircuitBreaker::layer`], with this
    /// [classifier](crate::Classify). Around HTTP it is `http::HttpClassifier`: to
    /// [`DefaultClassifier`](crate::DefaultClassifier), a 500 is a success.
    fn circuit_breaker<C>(
        self,
        breaker: &CircuitBreaker,
        classify: C,
    ) -> ServiceBuilder<Stack<CircuitBreakerLayer<C>, L>>;

    /// Retries failed calls: [`Retry::layer`], with this [classifier](crate::Classify). Clones
    /// every request and retries it after any failure; around HTTP, use
    /// [`http_retries`](Self::http_retries).
    fn retries<C>(self, retry: &Retry, classify: C) -> ServiceBuilder<Stack<RetryLayer<C>, L>>;

    /// Retries failed HTTP requests whose method or `Idempotency-Key` allows it: [`Retry::layer`]
    /// with [`HttpClassifier`](crate::http::HttpClassifier) and
    /// [`HttpRepeat`](crate::http::HttpRepeat).
    #[cfg(feature = "http")]
    fn http_retries(
        self,
        retry: &Retry,
    ) -> ServiceBuilder<Stack<RetryLayer<crate::http::HttpClassifier, crate::http::HttpRepeat>, L>>;

    /// Limits the time of a call: [`Timeout::layer`].
    fn time_limit(self, timeout: &Timeout) -> ServiceBuilder<Stack<TimeoutLayer, L>>;

    /// Limits the number of concurrent calls: [`Bulkhead::layer`].
    fn bulkhead(self, bulkhead: &Bulkhead) -> ServiceBuilder<Stack<BulkheadLayer, L>>;

    /// Limits the rate of calls: [`RateLimiter::layer`].
    fn rate_limiter(self, limiter: &RateLimiter) -> ServiceBuilder<Stack<RateLimitLayer, L>>;

    /// Serves a fallback in place of an error: [`FallbackLayer`].
    fn fallback<V, W>(self, fallback: FallbackLayer<V, W>) -> ServiceBuilder<Stack<FallbackLayer<V, W>, L>>;

    /// Adapts the error of a foreign service, and belongs innermost: [`AdaptErrorLayer`].
    fn adapt_error(self) -> ServiceBuilder<Stack<AdaptErrorLayer, L>>;

    /// Adds `layers` and turns their rejections into responses: [`RespondLayer`].
    fn respond<M, F, T>(self, layers: M, respond: F) -> ServiceBuilder<Stack<RespondLayer<M, F>, L>>
    where
        F: Fn(Rejection) -> T;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn circuit_breaker<C>(
        self,
        breaker: &CircuitBreaker,
        classify: C,
    ) -> ServiceBuilder<Stack<CircuitBreakerLayer<C>, L>> {
        self.layer(breaker.layer().classify(classify))
    }

    fn retries<C>(self, retry: &Retry, classify: C) -> ServiceBuilder<Stack<RetryLayer<C>, L>> {
        self.layer(retry.layer().classify(classify))
    }

    #[cfg(feature = "http")]
    fn http_retries(
        self,
        retry: &Retry,
    ) -> ServiceBuilder<Stack<RetryLayer<crate::http::HttpClassifier, crate::http::HttpRepeat>, L>> {
        let (classify, repeat) = (crate::http::HttpClassifier::new(), crate::http::HttpRepeat::new());
        self.layer(retry.layer().classify(classify).repeat(repeat))
    }

    fn time_limit(self, timeout: &Timeout) -> ServiceBuilder<Stack<TimeoutLayer, L>> {
        self.layer(timeout.layer())
    }

    fn bulkhead(self, bulkhead: &Bulkhead) -> ServiceBuilder<Stack<BulkheadLayer, L>> {
        self.layer(bulkhead.layer())
    }

    fn rate_limiter(self, limiter: &RateLimiter) -> ServiceBuilder<Stack<RateLimitLayer, L>> {
        self.layer(limiter.layer())
    }

    fn fallback<V, W>(self, fallback: FallbackLayer<V, W>) -> ServiceBuilder<Stack<FallbackLayer<V, W>, L>> {
        self.layer(fallback)
    }

    fn adapt_error(self) -> ServiceBuilder<Stack<AdaptErrorLayer, L>> {
        self.layer(AdaptErrorLayer::new())
    }

    fn respond<M, F, T>(self, layers: M, respond: F) -> ServiceBuilder<Stack<RespondLayer<M, F>, L>>
    where
        F: Fn(Rejection) -> T,
    {
        self.layer(RespondLayer::new(layers, respond))
    }
}

mod sealed {
    pub trait Sealed {}
    impl<L> Sealed for tower::ServiceBuilder<L> {}
}
