use std::{fmt, marker::PhantomData};

use tower_layer::Layer;

use super::{CircuitBreaker, CircuitBreakerService};
use crate::{
    classify::{Classify, DefaultClassifier, Verdict},
    readiness::{Backpressure, Reject},
};

/// A layer that rejects calls to a service while a [`CircuitBreaker`] is open.
///
/// `C` classifies results; it is cloned for each call. `M` is the [readiness
/// mode](crate::readiness).
#[derive(Clone)]
pub struct CircuitBreakerLayer<C = DefaultClassifier, M = Reject> {
    breaker: CircuitBreaker,
    classify: C,
    mode: PhantomData<fn() -> M>,
}

impl CircuitBreakerLayer {
    /// Creates a layer that rejects calls while `breaker` is open, and classifies results with
    /// [`DefaultClassifier`].
    pub fn new(breaker: &CircuitBreaker) -> Self {
        Self { breaker: breaker.clone(), classify: DefaultClassifier, mode: PhantomData }
    }
}

impl<C, M> CircuitBreakerLayer<C, M> {
    /// Sets the classifier of results: a [`Classify`] implementation, or a closure that names the
    /// types of its argument. Rejections by inner layers have their [default
    /// verdict](crate::Rejection::default_verdict) unless the implementation overrides it.
    pub fn classify<D>(self, classify: D) -> CircuitBreakerLayer<D, M> {
        CircuitBreakerLayer { breaker: self.breaker, classify, mode: PhantomData }
    }

    /// Sets a closure as the classifier of results. As [`classify`](Self::classify), but the
    /// compiler knows what kind of closure it is.
    pub fn classify_with<F, T, E>(self, classify: F) -> CircuitBreakerLayer<F, M>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
        F: Classify<T, E>,
    {
        self.classify(classify)
    }

    /// Keeps `poll_ready` pending while the circuit would reject; see the [module
    /// docs](super#readiness).
    pub fn backpressure(self) -> CircuitBreakerLayer<C, Backpressure> {
        CircuitBreakerLayer { breaker: self.breaker, classify: self.classify, mode: PhantomData }
    }
}

impl<C, M> fmt::Debug for CircuitBreakerLayer<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerLayer").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

impl<S, C: Clone, M> Layer<S> for CircuitBreakerLayer<C, M> {
    type Service = CircuitBreakerService<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService::with(inner, &self.breaker, self.classify.clone())
    }
}
