use std::{borrow::Borrow, fmt, hash::RandomState};

use tower_layer::Layer;

use super::{KeyedRateLimitService, KeyedRateLimiter};

/// What happens to a request that has no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// All requests without a key share one limiter, as if that were their key. So leaving the key away is no way around
    /// the limit, and nobody is refused for a key that an outage of its source took away.
    #[default]
    Share,
    /// It passes, unlimited.
    Allow,
    /// It is refused, for good.
    Reject,
}

/// Puts a [`KeyedRateLimiter`] around a service. It refuses what exceeds a key's rate.
///
/// `F` is a function from the request to its key.
pub struct KeyedRateLimitLayer<K: ?Sized, F, H = RandomState> {
    pub(super) limiter: KeyedRateLimiter<K, H>,
    pub(super) key: F,
    pub(super) missing_key: MissingKey,
}

impl<K: ?Sized, H: Clone> KeyedRateLimiter<K, H> {
    /// The layer that limits a service's calls by the key that `key` finds in the request.
    pub fn layer<F, Req, Q>(&self, key: F) -> KeyedRateLimitLayer<K, F, H>
    where
        F: Fn(&Req) -> Option<Q>,
        Q: Borrow<K>,
    {
        KeyedRateLimitLayer { limiter: self.clone(), key, missing_key: MissingKey::default() }
    }
}

impl<K: ?Sized, F, H> KeyedRateLimitLayer<K, F, H> {
    /// What happens to a request that has no key.
    pub fn missing_key(mut self, then: MissingKey) -> Self {
        self.missing_key = then;
        self
    }
}

impl<S, K: ?Sized, F: Clone, H: Clone> Layer<S> for KeyedRateLimitLayer<K, F, H> {
    type Service = KeyedRateLimitService<S, K, F, H>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRateLimitService::with(inner, self.clone())
    }
}

impl<K: ?Sized, F: Clone, H: Clone> Clone for KeyedRateLimitLayer<K, F, H> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), key: self.key.clone(), missing_key: self.missing_key }
    }
}

impl<K: ?Sized, F, H> fmt::Debug for KeyedRateLimitLayer<K, F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitLayer")
            .field("limiter", &self.limiter)
            .field("missing_key", &self.missing_key)
            .finish_non_exhaustive()
    }
}
