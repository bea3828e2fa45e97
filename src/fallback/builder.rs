use std::future::Future;

use super::{FallbackLayer, ServeFunction, ServeFunctionWith, ServeService, ServeValue};
use crate::name::Name;

/// The constructors of [`FallbackLayer`]. See the [module docs](super).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Fallback;

impl Fallback {
    /// Creates a layer that serves clones of `value`.
    pub fn value<T>(name: impl Into<Name>, value: T) -> FallbackLayer<ServeValue<T>> {
        FallbackLayer::serving(name.into(), ServeValue(value))
    }

    /// Creates a layer that serves the output of `function`, which is called with a clone of the
    /// request and the result that is replaced.
    pub fn function<F, Fut, Req, T, E>(name: impl Into<Name>, function: F) -> FallbackLayer<ServeFunction<F>>
    where
        F: Fn(Req, Result<T, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        FallbackLayer::serving(name.into(), ServeFunction(function))
    }

    /// As [`function`](Self::function), but `function` is called with the part of the request that
    /// `keep` has copied before the service got the request. For requests that cannot be cloned,
    /// such as those with a streaming body.
    pub fn function_with<K, F, Fut, Req, Kept, T, E>(
        name: impl Into<Name>,
        keep: K,
        function: F,
    ) -> FallbackLayer<ServeFunctionWith<K, F>>
    where
        K: Fn(&Req) -> Kept,
        F: Fn(Kept, Result<T, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        FallbackLayer::serving(name.into(), ServeFunctionWith { keep, function })
    }

    /// Creates a layer that serves the response of another service to a clone of the request.
    pub fn service<S>(name: impl Into<Name>, service: S) -> FallbackLayer<ServeService<S>> {
        FallbackLayer::serving(name.into(), ServeService::new(service))
    }
}
