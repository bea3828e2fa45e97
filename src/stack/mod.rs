//! Ready-made stacks: the patterns in the order that works, with numbers that fit together.
//!
//! ```text
//! client   [fallback] -> total timeout -> retry (+ budget) -> [rate limiter] -> circuit breaker -> bulkhead -> attempt timeout -> service
//! server   total timeout -> [rate limiter] -> [circuit breaker] -> bulkhead -> service
//! ```
//!
//! Parts in brackets are optional. Every other part has a default, and can be left out or replaced
//! by a handle of your own, which other stacks may share.
//!
//! # Why this order
//!
//! - Retry is outside of the breaker, so that the breaker counts every attempt and an open circuit
//!   ends the retries immediately.
//! - The bulkhead is inside of retry, so that a delay between attempts holds no permit.
//! - The attempt timeout is innermost, so that a call that hangs counts as a failure in the
//!   breaker.
//! - The total timeout is outside of retry: it bounds the caller's wait. The retry sees it, and
//!   schedules no attempt that would start after it.
//!
//! The other common order has breaker and limiter outermost and retry inside: the breaker then
//! counts one verdict per user's call, and a rejection costs nothing at all. Choose it if single
//! failures are common and harmless, and only a call that fails after all its retries is
//! significant. Build it from the layers themselves; the error is the same flat one in any order.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_rampart::{BoxError, stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let stack = stack::client("payments")
//!     .total_timeout(Duration::from_secs(3))
//!     .attempt_timeout(Duration::from_millis(800))
//!     .build()?;
//! println!("{stack}"); // one line, for the log at startup
//!
//! let service = stack.layer(service_fn(|amount: u32| async move { Ok::<_, BoxError>(amount) }));
//! assert_eq!(service.oneshot(7).await?, 7);
//! # Ok(()) }
//! ```
//!
//! For a server whose service must not fail, put the stack into a
//! [`RespondLayer`](crate::RespondLayer).

mod client;
mod describe;
pub mod future;
mod layers;
mod parts;
mod parts_builder;
mod server;
mod setting;
#[cfg(all(test, not(rampart_loom)))]
mod tests;
mod validate;

pub use client::{ClientBuilder, ClientService, ClientStack, client};
pub use server::{ServerBuilder, ServerService, ServerStack, server};
