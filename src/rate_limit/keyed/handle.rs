use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::atomic::Ordering,
};

use super::{
    KeyedRateLimiterBuilder,
    inner::{KeyedInner, SpentToken},
};
use crate::{
    call::CancelOnDrop,
    classify::Verdict,
    error::{FromRejection, Rejection},
    event::EventKind,
    name::Name,
    rate_limit::Rate,
    shared::striped::StripedArc,
};

/// A handle to one rate limit per key, in a table of fixed size. See the [module
/// docs](crate::rate_limit).
///
/// A key with all its tokens is equivalent to a key that was never seen, so only such keys are
/// forgotten: a flood of new keys can neither evict nor reset a key that is being limited. It can
/// fill the table; [`WhenFull`](super::WhenFull) is the policy for further keys. Keys are hashed
/// with random seeds, so an attacker cannot target a table slot. When the table is full, two keys
/// share a limiter with a probability of about one in ten thousand: they are then limited together.
///
/// The rate is fixed. To change it, create another limiter.
///
/// Cheap to clone. All clones share the table. `H` hashes the keys.
pub struct KeyedRateLimiter<K: ?Sized, H = RandomState> {
    pub(super) shared: StripedArc<KeyedInner>,
    hasher: H,
    key: PhantomData<fn(&K)>,
}

impl<K: Hash + ?Sized> KeyedRateLimiter<K> {
    /// Returns a builder of a limiter of `rate` per key, with the defaults of
    /// [`KeyedRateLimiterBuilder`].
    pub fn builder(name: impl Into<Name>, rate: Rate) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder::new(name.into(), rate)
    }
}

impl<K: Hash + ?Sized, H: BuildHasher> KeyedRateLimiter<K, H> {
    /// Consumes a token of `key`.
    ///
    /// A hash, up to eight loads on one cache line, one read-modify-write and one clock read; a
    /// rejection writes nothing, except that it counts an overflow if the key found no free slot.
    ///
    /// # Errors
    ///
    /// [`Rejection::RateLimited`], with the time after which the call would be admitted.
    pub fn check_key(&self, key: &K) -> Result<(), Rejection> {
        self.check_key_n(key, 1)
    }

    /// Consumes `cost` tokens of `key`, or none.
    ///
    /// # Errors
    ///
    /// As [`check_key`](Self::check_key); without a time if the cost exceeds the burst, so that the
    /// call can never be admitted.
    pub fn check_key_n(&self, key: &K, cost: u32) -> Result<(), Rejection> {
        let inner = &*self.shared;
        inner.take(self.hasher.hash_one(key), cost)?;
        inner.events.emit(|| EventKind::Admitted);
        // The limiter does not know the result of the call that follows.
        inner.events.emit(|| EventKind::Completed { verdict: Verdict::Success, elapsed: None });
        Ok(())
    }

    /// Checks whether a call of `key` that costs one token would be admitted now. Consumes no token
    /// and emits no event.
    ///
    /// # Errors
    ///
    /// As [`check_key`](Self::check_key).
    pub fn peek_key(&self, key: &K) -> Result<(), Rejection> {
        let inner = &*self.shared;
        let decision = inner.table.check(self.hasher.hash_one(key), inner.time.now(), 1, true);
        decision.result.map_err(|rejection| inner.rejection(inner.events.name().clone(), rejection))
    }

    /// Runs `future` if `key` has a token available.
    ///
    /// # Errors
    ///
    /// The future's own error, or [`Rejection::RateLimited`], in which case the future is dropped
    /// without being polled.
    pub async fn run_key<F, T, E>(&self, key: &K, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        self.take(key)?;
        let shared = &*self.shared;
        let guard = CancelOnDrop::new(shared, SpentToken::admitted(&shared.events));
        let result = future.await;
        guard.complete(result.as_ref());
        result
    }

    pub(super) fn take(&self, key: &K) -> Result<(), Rejection> {
        self.shared.take(self.hasher.hash_one(key), 1)
    }
}

impl<K: ?Sized, H> KeyedRateLimiter<K, H> {
    pub(super) fn from_parts(shared: StripedArc<KeyedInner>, hasher: H) -> Self {
        Self { shared, hasher, key: PhantomData }
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.shared.events.name()
    }

    /// Returns a snapshot of the limiter. Counts the active keys, which reads the whole table.
    pub fn snapshot(&self) -> KeyedRateLimiterSnapshot {
        let inner = &*self.shared;
        KeyedRateLimiterSnapshot {
            rate: inner.rate,
            burst: inner.table.burst(),
            active_keys: inner.table.active(inner.time.now()),
            bytes: inner.table.bytes(),
            overflows: inner.overflows.load(Ordering::Relaxed),
        }
    }
}

impl<K: ?Sized, H: Clone> Clone for KeyedRateLimiter<K, H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), hasher: self.hasher.clone(), key: PhantomData }
    }
}

impl<K: ?Sized, H> fmt::Debug for KeyedRateLimiter<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiter")
            .field("name", self.shared.events.name())
            .field("rate", &self.shared.rate)
            .field("burst", &self.shared.table.burst())
            .finish_non_exhaustive()
    }
}

/// The state of a [`KeyedRateLimiter`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedRateLimiterSnapshot {
    /// The rate of each key.
    pub rate: Rate,
    /// The maximum number of tokens that a key can consume at one instant.
    pub burst: u32,
    /// Keys with fewer than all of their tokens now.
    pub active_keys: usize,
    /// The memory of the table, in bytes.
    pub bytes: usize,
    /// Calls whose key found no free slot.
    pub overflows: u64,
}
