//! Ready-made stacks: the patterns in the order that works, with numbers that fit together.
//!
//! ```text
//! client   [fallback] -> total timeout -> retry (+ budget) -> [rate limiter] -> circuit breaker -> bulkhead -> attempt timeout -> service
//! server   total timeout -> [rate limiter] -> [circuit breaker] -> bulkhead -> service
//! ```
//!
//! StackParts in brackets are there when they are given. Every other part has a default, can be replaced by a handle of your
//! own, which may be shared with other stacks, and can be left out.
//!
//! # Why this order
//!
//! - Retry is outside of the breaker, so that every attempt is counted and an open circuit ends the retries at once.
//! - The bulkhead is inside of retry, so that a wait between attempts holds no permit.
//! - The attempt timeout is innermost, so that a call that hangs counts as a failure in the breaker.
//! - The total timeout is outside of retry: it is what the caller waits. The retry sees it and starts nothing that it
//!   would kill.
//!
//! The other order that people use has breaker and limiter outermost and retry inside: the breaker then counts one
//! verdict for each user's call, and a refusal costs nothing at all. Choose it when single failures are common and
//! harmless and only a call that fails after all its retries means something. Build it from the layers themselves; any
//! order has the same flat error.
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
//! println!("{stack}"); // a line for the log, at start
//!
//! let service = stack.layer(service_fn(|amount: u32| async move { Ok::<_, BoxError>(amount) }));
//! assert_eq!(service.oneshot(7).await?, 7);
//! # Ok(()) }
//! ```
//!
//! Around a server that must not fail, the stack goes into a [`RespondLayer`](crate::RespondLayer).

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
