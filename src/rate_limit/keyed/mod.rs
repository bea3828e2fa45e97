//! One limiter per key.

mod handle;
mod layer;

pub use handle::{KeyedRateLimiter, KeyedRateLimiterBuilder, KeyedRateLimiterSnapshot, WhenFull};
pub use layer::{KeyedRateLimitLayer, KeyedRateLimitService, MissingKey};
