use std::fmt;

use tower_layer::{Identity, Layer};

use super::{ClientService, ClientShared};
use crate::{
    call::{Part, RejectableLeaf},
    classify::DefaultClassifier,
    name::Name,
    request::Cloned,
    retry::Retry,
    stack::{
        describe,
        layers::{attempts, client_calls},
        parts::StackParts,
        parts_builder::part_accessors,
    },
    timeout::Timeout,
};

/// A client stack: a layer, and the handles of its parts.
///
/// Clones, and all services made from them, share the handles. `Display` describes the stack in one
/// line.
#[derive(Clone)]
pub struct ClientStack<C = DefaultClassifier, Q = Cloned, F = Identity> {
    pub(super) name: Name,
    pub(super) parts: StackParts<C>,
    pub(super) retry: Part<Retry>,
    pub(super) repeat: Q,
    pub(super) fallback: F,
}

impl<C, Q, F> ClientStack<C, Q, F> {
    part_accessors!();

    /// Returns the retry, if the stack has one.
    pub fn retry(&self) -> Option<&Retry> {
        self.retry.as_option()
    }

    /// Returns the attempt timeout, if the stack has one.
    pub fn attempt_timeout(&self) -> Option<&Timeout> {
        self.parts.attempt.as_option()
    }
}

impl<C, Q, F> fmt::Display for ClientStack<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.total_timeout().map(|timeout| describe::timeout("total timeout", timeout)),
            self.retry().map(describe::retry),
            self.rate_limiter().map(describe::limiter),
            self.circuit_breaker().map(describe::breaker),
            self.bulkhead().map(describe::bulkhead),
            self.attempt_timeout().map(|timeout| describe::timeout("attempt timeout", timeout)),
        ];
        describe::stack(f, "client", &self.name, parts)
    }
}

impl<C, Q, F> fmt::Debug for ClientStack<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S, C, Q, F> Layer<S> for ClientStack<C, Q, F>
where
    S: Clone,
    C: Clone,
    Q: Clone,
    F: Layer<ClientService<S, C, Q>>,
{
    type Service = F::Service;

    fn layer(&self, service: S) -> F::Service {
        let attempts = attempts(RejectableLeaf::new(service), &self.parts);
        let calls = client_calls(attempts.clone(), &self.parts, &self.retry);
        let (parts, retry, repeat) = (self.parts.clone(), self.retry.clone(), self.repeat.clone());
        self.fallback.layer(ClientService::new(calls, ClientShared::new(parts, retry, repeat, attempts)))
    }
}
