use std::{fmt, future::Future, sync::Arc};

use tower_layer::Layer;

use super::{
    FallbackService, Rejected, When,
    fallback_call::{FallbackCall, Function},
    inner::{FallbackInner, ObservedCall},
};
use crate::{
    call::{LeafCall, WithShared},
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
};

/// A layer that serves a fallback in place of selected results of a service, and the handle of that
/// fallback. See the [module docs](super).
///
/// `V` makes the fallback, `W` selects the results. Cheap to clone. Clones and services share both.
pub struct FallbackLayer<V, W = Rejected> {
    pub(super) shared: StripedArc<FallbackInner<V, W>>,
}

impl<V> FallbackLayer<V> {
    pub(super) fn serving(name: Name, serve: V) -> Self {
        let events = EventEmitter::new(Pattern::Fallback, name, None);
        Self { shared: StripedArc::new(FallbackInner { serve: Arc::new(serve), when: Rejected, events }) }
    }
}

impl<V, W> FallbackLayer<V, W> {
    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.shared.events.name()
    }

    /// Returns a layer that replaces the results for which `when` returns `true`: errors other than
    /// rejections, or unwanted responses.
    pub fn when<F, T, E>(&self, when: F) -> FallbackLayer<V, F>
    where
        F: Fn(Result<&T, &E>) -> bool,
        F: When<T, E>,
    {
        let FallbackInner { serve, events, .. } = &*self.shared;
        FallbackLayer { shared: StripedArc::new(FallbackInner { serve: serve.clone(), when, events: events.clone() }) }
    }

    /// Returns a layer with an observer that receives its events.
    pub fn observer(&self, observer: impl Observer) -> Self
    where
        W: Clone,
    {
        let FallbackInner { serve, when, events } = &*self.shared;
        let events = EventEmitter::new(Pattern::Fallback, events.name().clone(), Some(Arc::new(observer)));
        Self { shared: StripedArc::new(FallbackInner { serve: serve.clone(), when: when.clone(), events }) }
    }

    /// Runs `future`, and `fallback` with its result if that is to be replaced. For use without
    /// Tower.
    ///
    /// # Errors
    ///
    /// The error of the future or of the fallback.
    pub async fn run<F, T, E, G, Fut>(&self, future: F, fallback: G) -> Result<T, E>
    where
        W: When<T, E>,
        F: Future<Output = Result<T, E>>,
        G: FnOnce(Result<T, E>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let shared = &*self.shared;
        let in_flight = Some(ObservedCall::admitted(&shared.events));
        WithShared::new(shared, FallbackCall::started(LeafCall::new(future), Function(fallback), in_flight)).await
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
