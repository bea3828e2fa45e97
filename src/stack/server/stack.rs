use std::fmt;

use tower_layer::Layer;

use super::ServerService;
use crate::{
    call::RejectableLeaf,
    classify::DefaultClassifier,
    error::RespondLayer,
    name::Name,
    stack::{describe, layers::server_calls, parts::StackParts, parts_builder::part_accessors},
};

/// A server stack: a layer, and the handles of its parts.
///
/// Clones, and all services made from them, share the handles. `Display` describes the stack in one
/// line.
#[derive(Clone)]
pub struct ServerStack<C = DefaultClassifier> {
    pub(super) name: Name,
    pub(super) parts: StackParts<C>,
}

impl<C> ServerStack<C> {
    part_accessors!();

    /// Returns a layer that turns rejections into responses, for a server whose service must not
    /// fail. `respond` is a closure of the rejection, or another
    /// [`Responder`](crate::error::Responder).
    pub fn respond<F>(self, respond: F) -> RespondLayer<Self, F> {
        RespondLayer::new(self, respond)
    }
}

impl<C> fmt::Display for ServerStack<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.total_timeout().map(|timeout| describe::timeout("total timeout", timeout)),
            self.rate_limiter().map(describe::limiter),
            self.circuit_breaker().map(describe::breaker),
            self.bulkhead().map(describe::bulkhead),
        ];
        describe::stack(f, "server", &self.name, parts)
    }
}

impl<C> fmt::Debug for ServerStack<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S, C> Layer<S> for ServerStack<C>
where
    C: Clone,
{
    type Service = ServerService<S, C>;

    fn layer(&self, service: S) -> Self::Service {
        ServerService::new(server_calls(RejectableLeaf::new(service), &self.parts), self.parts.clone())
    }
}
