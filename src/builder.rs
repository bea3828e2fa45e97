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

/// `.circuit_breaker(&breaker)` and its sisters on [`ServiceBuilder`].
///
/// Each adds the pattern's plain layer; for its other modes and settings use `.layer(breaker.layer().backpressure())`.
/// Where `ServiceBuilder` has methods of its own (`timeout`, `retry`, `rate_limit`), these have other names.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_rampart::{
///     BoxError, ServiceBuilderExt, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, retry::Retry, timeout::Timeout,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = ServiceBuilder::new()
///     .time_limit(&Timeout::new("search", Duration::from_secs(2)))
///     .retries(&Retry::attempts("search", 3)?)
///     .circuit_breaker(&CircuitBreaker::new("search"))
///     .bulkhead(&Bulkhead::new("search", 32)?)
///     .service_fn(|query: String| async move { Ok::<_, BoxError>(query.len()) });
/// assert_eq!(service.oneshot("tower".to_owned()).await?, 5);
/// # Ok(()) }
/// ```
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// Breaks the circuit: [`CircuitBreaker::layer`].
    fn circuit_breaker(self, breaker: &CircuitBreaker) -> ServiceBuilder<Stack<CircuitBreakerLayer, L>>;

    /// Repeats what failed: [`Retry::layer`].
    fn retries(self, retry: &Retry) -> ServiceBuilder<Stack<RetryLayer, L>>;

    /// Gives up what takes too long: [`Timeout::layer`].
    fn time_limit(self, timeout: &Timeout) -> ServiceBuilder<Stack<TimeoutLayer, L>>;

    /// At most N calls at once: [`Bulkhead::layer`].
    fn bulkhead(self, bulkhead: &Bulkhead) -> ServiceBuilder<Stack<BulkheadLayer, L>>;

    /// At most so many calls in so much time: [`RateLimiter::layer`].
    fn rate_limiter(self, limiter: &RateLimiter) -> ServiceBuilder<Stack<RateLimitLayer, L>>;

    /// Serves something else instead of an error.
    fn fallback<V, W>(self, fallback: FallbackLayer<V, W>) -> ServiceBuilder<Stack<FallbackLayer<V, W>, L>>;

    /// Innermost, around a service with a foreign error: [`AdaptErrorLayer`].
    fn adapt_error(self) -> ServiceBuilder<Stack<AdaptErrorLayer, L>>;

    /// Turns the rejections of `layers`, which are added with it, into responses: [`RespondLayer`].
    fn respond<M, F, T>(self, layers: M, respond: F) -> ServiceBuilder<Stack<RespondLayer<M, F>, L>>
    where
        F: Fn(Rejection) -> T;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn circuit_breaker(self, breaker: &CircuitBreaker) -> ServiceBuilder<Stack<CircuitBreakerLayer, L>> {
        self.layer(breaker.layer())
    }

    fn retries(self, retry: &Retry) -> ServiceBuilder<Stack<RetryLayer, L>> {
        self.layer(retry.layer())
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
