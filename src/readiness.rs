//! Readiness modes, as types: a saturated layer rejects, applies backpressure, or waits.
//!
//! The layers that may reject a call (circuit breaker, bulkhead, rate limiter) share the same
//! modes, chosen on the layer: [`Reject`] is the default, `.backpressure()` makes it
//! [`Backpressure`], and where waiting makes sense `.wait()` makes it [`Wait`]. No mode ever fails
//! `poll_ready`: an error there is final by Tower's contract.

/// `poll_ready` never waits for the pattern; `call` returns a [`Rejection`](crate::Rejection).
///
/// For servers, and for clients with no other instance to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reject;

/// `poll_ready` is pending, with a waker, until the pattern would admit a call, and reserves a
/// permit, probe slot or token for it.
///
/// For use under `tower::balance`, `Buffer` and `LoadShed`, which then see the real capacity.
/// Dropping a ready service that was not called releases its reservation; a clone starts with none.
/// Where idle callers poll early and keep the readiness, as hyper's server connections do, each
/// holds a reservation. Those of a bulkhead or a breaker [lapse](crate::bulkhead#idle-reservations)
/// when another caller needs them, and the token of a [rate limiter](crate::rate_limit#readiness)
/// expires after 10 ms, so no caller waits for an idle one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Backpressure;

/// `poll_ready` never waits for the pattern; the response future waits, for a bounded time, before
/// it calls the inner service.
///
/// The inner call happens after `call` has returned, so the service must be `Clone`: the future
/// takes the instance that is ready and leaves a clone in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Wait;
