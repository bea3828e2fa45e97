//! Limiters within limiters: an address within its network, a tenant's user within the tenant.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use super::KeyedRateLimiter;
use crate::error::Rejection;

/// A limiter around another one with keys `K`.
pub(super) trait Outer<K: ?Sized>: Send + Sync {
    /// The rejection that a call of `key` would get, if any: the one with the longest wait.
    fn peek(&self, key: &K, cost: u32) -> Option<Rejection>;

    /// Takes tokens, then calls `inner`. If that fails or panics, the tokens are refunded.
    fn take_around(&self, key: &K, cost: u32, inner: &mut TakeInner<'_>) -> Result<(), Rejection>;
}

pub(super) type TakeInner<'a> = dyn FnMut() -> Result<(), Rejection> + 'a;

/// The limiters directly around one with keys `K`.
pub(super) type Outers<K> = Arc<[Arc<dyn Outer<K>>]>;

/// A limiter, with the function from an inner key to its own.
pub(super) struct Within<Q: ?Sized, F, P, H> {
    pub(super) limiter: KeyedRateLimiter<Q, H>,
    pub(super) key: F,
    pub(super) owned_key: PhantomData<fn() -> P>,
}

impl<K, Q, F, P, H> Outer<K> for Within<Q, F, P, H>
where
    K: ?Sized,
    Q: Hash + ?Sized,
    F: Fn(&K) -> Option<P> + Send + Sync,
    P: Borrow<Q>,
    H: BuildHasher + Send + Sync,
{
    fn peek(&self, key: &K, cost: u32) -> Option<Rejection> {
        self.limiter.peek(self.key(key)?.borrow(), cost)
    }

    fn take_around(&self, key: &K, cost: u32, inner: &mut TakeInner<'_>) -> Result<(), Rejection> {
        match self.key(key) {
            Some(key) => self.limiter.take_around(key.borrow(), cost, inner),
            None => inner(),
        }
    }
}

impl<Q: ?Sized, F, P, H> Within<Q, F, P, H> {
    fn key<K: ?Sized>(&self, key: &K) -> Option<P>
    where
        F: Fn(&K) -> Option<P>,
    {
        (self.key)(key)
    }
}

/// Takes tokens of all `outers`, then calls `inner`.
pub(super) fn take_around<K: ?Sized>(
    outers: &[Arc<dyn Outer<K>>],
    key: &K,
    cost: u32,
    inner: &mut TakeInner<'_>,
) -> Result<(), Rejection> {
    match outers {
        [] => inner(),
        [outer, others @ ..] => outer.take_around(key, cost, &mut || take_around(others, key, cost, inner)),
    }
}

/// The rejection with the longest wait. The longest is the one without an end.
pub(super) fn longest_wait(rejections: impl Iterator<Item = Rejection>) -> Option<Rejection> {
    rejections.max_by_key(|rejection| rejection.retry_after().unwrap_or(Duration::MAX))
}
