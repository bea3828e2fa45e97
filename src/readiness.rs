//! When a layer refuses, waits, or holds back: its readiness mode, as a type.
//!
//! The layers that may refuse a call (circuit breaker, bulkhead, rate limiter) all know the same modes, chosen on the
//! layer: [`Reject`] is the default, `.backpressure()` makes it [`Backpressure`], and where waiting makes sense
//! `.wait()` makes it [`Wait`]. None of them ever fails `poll_ready`: an error there is final by Tower's contract.

/// `poll_ready` never waits on the pattern; `call` answers with a [`Rejection`](crate::Rejection).
///
/// For servers, and for clients with nowhere else to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reject;

/// `poll_ready` is pending, with a waker, until the pattern would admit a call, and reserves what the call needs.
///
/// For use under `tower::balance`, `Buffer` and `LoadShed`, which then see the truth. A readiness that is taken and
/// never used gives its reservation back when the service is dropped; a clone starts with none. Do not use it where
/// idle callers poll early and keep the readiness (hyper's server connections do): each would hold a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Backpressure;

/// `poll_ready` never waits on the pattern; the response future waits, for a bounded time, before it calls the service.
///
/// The call is made later than `call`, so the service must be `Clone`: the future takes the instance that was ready
/// and leaves a clone in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Wait;
