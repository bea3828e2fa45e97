//! The patterns around a service, in order. Each of them may be absent from a stack.

use super::parts::{Attempt, StackParts, Total};
use crate::{
    bulkhead::{BulkheadCall, WithBulkhead},
    call::{Optional, Part},
    circuit_breaker::{BreakerCall, WithBreaker},
    rate_limit::{RateLimitCall, WithRateLimit},
    retry::{Retry, RetryCall, WithRetry},
    timeout::{Standalone, TimedCall, WithTimeout},
};

/// The patterns that both stacks put around a call.
type Protected<S> = Optional<WithRateLimit<FromBreaker<S>>>;
type FromBreaker<S> = Optional<WithBreaker<FromBulkhead<S>>>;
type FromBulkhead<S> = Optional<WithBulkhead<S>>;
type ProtectedCall<S, Req, C> = RateLimitCall<FromBreaker<S>, Req, BreakerCall<BulkheadCall<S, Req, C>>>;

/// The attempts of a client: the patterns inside of its retry.
pub(super) type Attempts<S> = Protected<Optional<WithTimeout<S, Attempt>>>;

/// An attempt, whose inner call is `F`.
type AttemptCall<S, Req, F> = ProtectedCall<Optional<WithTimeout<S, Attempt>>, Req, TimedCall<F, Attempt>>;

/// The calls of a client.
pub(super) type ClientCalls<S> = Optional<WithTimeout<Optional<WithRetry<Attempts<S>>>, Total>>;

/// A call of a client, whose inner call is `F`.
pub(super) type ClientCall<S, Req, Q, F, E> =
    TimedCall<RetryCall<AttemptCall<S, Req, F>, Attempts<S>, Req, Q, E>, Total>;

/// The calls of a server.
pub(super) type ServerCalls<S> = Optional<WithTimeout<Protected<S>, Standalone>>;

/// A call of a server, whose inner call is `F`.
pub(super) type ServerCall<S, Req, F> = TimedCall<ProtectedCall<S, Req, F>, Standalone>;

fn protected<S, C>(service: S, parts: &StackParts<C>) -> Protected<S> {
    let service = Optional::new(WithBulkhead::new(service), &parts.bulkhead);
    let service = Optional::new(WithBreaker::new(service), &parts.breaker);
    Optional::new(WithRateLimit::new(service), &parts.limiter)
}

pub(super) fn attempts<S, C>(service: S, parts: &StackParts<C>) -> Attempts<S> {
    protected(Optional::new(WithTimeout::new(service), &parts.attempt), parts)
}

pub(super) fn client_calls<S, C>(attempts: Attempts<S>, parts: &StackParts<C>, retry: &Part<Retry>) -> ClientCalls<S> {
    let service = Optional::new(WithRetry::new(attempts), retry);
    Optional::new(WithTimeout::new(service), &parts.total)
}

pub(super) fn server_calls<S, C>(service: S, parts: &StackParts<C>) -> ServerCalls<S> {
    Optional::new(WithTimeout::new(protected(service, parts)), &parts.total)
}
