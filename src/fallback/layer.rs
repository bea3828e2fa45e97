use std::{fmt, future::Future, sync::Arc};

use tower_layer::Layer;

use super::{FallbackService, Rejected, ServeFunction, ServeFunctionWith, ServeService, ServeValue, When};
use crate::{
    event::{EventEmitter, EventKind, Observer, Served},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
};

/// Makes [`FallbackLayer`]s. See the [module docs](super).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Fallback;

impl Fallback {
    /// Serves clones of `value`.
    pub fn value<T>(name: impl Into<Name>, value: T) -> FallbackLayer<ServeValue<T>> {
        FallbackLayer::serving(name.into(), ServeValue(value))
    }

    /// Serves what `function` makes of a clone of the request and the result that is replaced.
    pub fn function<F, Fut, Req, T, E>(name: impl Into<Name>, function: F) -> FallbackLayer<ServeFunction<F>>
    where
        F: Fn(Req, Result<T, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        FallbackLayer::serving(name.into(), ServeFunction(function))
    }

    /// As [`function`](Self::function), of what `keep` takes from the request before the service gets it: for requests
    /// that cannot be cloned, such as those with a body that streams.
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

    /// Serves the answer of another service to a clone of the request.
    pub fn service<S>(name: impl Into<Name>, service: S) -> FallbackLayer<ServeService<S>> {
        FallbackLayer::serving(name.into(), ServeService(service))
    }
}

/// Serves something else instead of chosen results of a service.
///
/// `V` makes what is served, `W` chooses. Clones and services share both.
pub struct FallbackLayer<V, W = Rejected> {
    pub(super) shared: StripedArc<FallbackInner<V, W>>,
}

pub(super) struct FallbackInner<V, W> {
    pub(super) serve: Arc<V>,
    pub(super) when: W,
    pub(super) events: EventEmitter,
}

impl<V> FallbackLayer<V> {
    fn serving(name: Name, serve: V) -> Self {
        let events = EventEmitter::new(Pattern::Fallback, name, None);
        Self { shared: StripedArc::new(FallbackInner { serve: Arc::new(serve), when: Rejected, events }) }
    }
}

impl<V, W> FallbackLayer<V, W> {
    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.shared.events.name()
    }

    /// Replaces the results for which `when` holds: other errors than rejections, or responses that are none.
    pub fn when<F, T, E>(&self, when: F) -> FallbackLayer<V, F>
    where
        F: Fn(Result<&T, &E>) -> bool,
        F: When<T, E>,
    {
        let FallbackInner { serve, events, .. } = &*self.shared;
        FallbackLayer { shared: StripedArc::new(FallbackInner { serve: serve.clone(), when, events: events.clone() }) }
    }

    /// Who is told what happens.
    pub fn observer(&self, observer: impl Observer) -> Self
    where
        W: Clone,
    {
        let FallbackInner { serve, when, events } = &*self.shared;
        let events = EventEmitter::new(Pattern::Fallback, events.name().clone(), Some(Arc::new(observer)));
        Self { shared: StripedArc::new(FallbackInner { serve: serve.clone(), when: when.clone(), events }) }
    }

    /// Runs `future`; when its result is to be replaced, `fallback` makes another of it. For use without Tower.
    ///
    /// # Errors
    ///
    /// The future's own, or the fallback's.
    pub async fn run<F, T, E, G, Fut>(&self, future: F, fallback: G) -> Result<T, E>
    where
        W: When<T, E>,
        F: Future<Output = Result<T, E>>,
        G: FnOnce(Result<T, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut call = ObservedCall::begin(&*self.shared);
        let result = future.await;
        if !self.shared.when.applies(result.as_ref()) {
            call.end(&result);
            return result;
        }
        let result = fallback(result).await;
        call.fallback_served(Served::Function);
        call.end(&result);
        result
    }
}

impl<S, V, W> Layer<S> for FallbackLayer<V, W> {
    type Service = FallbackService<S, V, W>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService::new(inner, self)
    }
}

impl<V, W> Clone for FallbackLayer<V, W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<V, W> fmt::Debug for FallbackLayer<V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("name", self.name()).finish_non_exhaustive()
    }
}

/// One call. Dropping it before it ended is its cancellation.
pub(super) struct ObservedCall<H: AsRef<EventEmitter>> {
    holder: H,
    ended: bool,
}

impl<V, W> AsRef<EventEmitter> for FallbackInner<V, W> {
    fn as_ref(&self) -> &EventEmitter {
        &self.events
    }
}

impl<H: AsRef<EventEmitter>> ObservedCall<H> {
    pub(super) fn begin(holder: H) -> Self {
        let call = Self { holder, ended: false };
        call.holder.as_ref().emit(|| EventKind::Admitted);
        call
    }

    pub(super) fn holder(&self) -> &H {
        &self.holder
    }

    /// What was served in the result's place.
    pub(super) fn fallback_served(&self, served: Served) {
        self.holder.as_ref().emit(|| EventKind::FallbackServed { served });
    }

    /// The verdict is on what the caller gets.
    pub(super) fn end<T, E>(&mut self, result: &Result<T, E>) {
        use crate::classify::{Classify, ResultClassifier};

        self.ended = true;
        let verdict = ResultClassifier.classify(result.as_ref());
        self.holder.as_ref().emit(|| EventKind::Completed { verdict, elapsed: None });
    }
}

impl<H: AsRef<EventEmitter>> Drop for ObservedCall<H> {
    fn drop(&mut self) {
        if !self.ended {
            self.holder.as_ref().emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}
