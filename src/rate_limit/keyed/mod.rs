//! One rate limit per key.

mod builder;
mod future;
mod handle;
mod inner;
mod layer;
mod outer;
mod service;

pub use builder::{KeyedRateLimiterBuilder, WhenFull};
pub use future::KeyedResponseFuture;
pub use handle::{KeyedRateLimiter, KeyedRateLimiterSnapshot};
pub use layer::{KeyedRateLimitLayer, MissingKey};
pub use service::KeyedRateLimitService;
