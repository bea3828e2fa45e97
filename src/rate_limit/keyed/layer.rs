use std::{borrow::Borrow, fmt, hash::RandomState};

use tower_layer::Layer;

use super::{KeyedRateLimitService, KeyedRateLimiter};

/// The policy for requests that have no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// All requests without a key share one limiter, as if they had the same key. So omitting the
    /// key does not evade the limit, and an outage of the keys' source does not reject every
    /// request.
    #[default]
    Share,
    /// It is admitted, without a limit.
    Allow,
    /// It is rejected permanently.
    Reject,
}

/// A layer that limits the rate of a service's calls per key by a [`KeyedRateLimiter`], and rejects
/// the rest.
///
/// `F` is the function from a request to its key.
pub struct KeyedRateLimitLayer<K: ?Sized, F, H = RandomState> {
    pub(super) limiter: KeyedRateLimiter<K, H>,
    pub(super) key: F,
    pub(super) missing_key: MissingKey,
}

impl<K: ?Sized, H: Clone> KeyedRateLimiter<K, H> {
    /// Returns a layer that limits the rate of a service's calls by the key that `key` extracts
    /// from each request.
    pub fn layer<F, Req, Q>(&self, key: F) -> KeyedRateLimitLayer<K, F, H>
    where
        F: Fn(&Req) -> Option<Q>,
        Q: Borrow<K>,
    {
        KeyedRateLimitLayer { limiter: self.clone(), key, missing_key: MissingKey::default() }
    }
}

impl<K: ?Sized, F, H> KeyedRateLimitLayer<K, F, H> {
    /// Sets the policy for requests that have no key.
    pub fn missing_key(mut self, missing_key: MissingKey) -> Self {
        self.missing_key = missing_key;
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
