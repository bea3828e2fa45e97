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

/// One limiter per key, in a table whose size does not depend on the keys that come.
///
/// A key whose tokens are all there is the same as a key that was never seen, so only such keys are forgotten: a flood of
/// new keys can neither evict nor reset one that is being limited. It can fill the table; what happens then is
/// [`WhenFull`]. Keys are hashed with random seeds, so nobody can aim at a place in the table. Two keys share a limiter
/// with a probability of about one in ten thousand when the table is full: they are then limited together.
///
/// The rate is fixed: to change it, make another limiter.
///
/// A handle: cheap to clone, and all clones share the table. `H` hashes the keys.
pub struct KeyedRateLimiter<K: ?Sized, H = RandomState> {
    pub(super) shared: StripedArc<KeyedInner>,
    hasher: H,
    key: PhantomData<fn(&K)>,
}

impl<K: Hash + ?Sized> KeyedRateLimiter<K> {
    /// A limiter of `rate` per key, to be changed.
    pub fn builder(name: impl Into<Name>, rate: Rate) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder::new(name.into(), rate)
    }
}

impl<K: Hash + ?Sized, H: BuildHasher> KeyedRateLimiter<K, H> {
    /// Takes a token of `key`.
    ///
    /// A hash, up to eight loads on one cache line, one read-modify-write and one clock read; a rejection writes nothing
    /// (where there was no place, it counts one overflow).
    ///
    /// # Errors
    ///
    /// [`Rejection::RateLimited`], with the time after which the call would pass.
    pub fn check_key(&self, key: &K) -> Result<(), Rejection> {
        self.check_key_n(key, 1)
    }

    /// Takes `cost` tokens of `key`, or none.
    ///
    /// # Errors
    ///
    /// As [`check_key`](Self::check_key); without a time when the cost exceeds the burst and so never can pass.
    pub fn check_key_n(&self, key: &K, cost: u32) -> Result<(), Rejection> {
        let inner = &*self.shared;
        inner.take(self.hasher.hash_one(key), cost)?;
        inner.events.emit(|| EventKind::Admitted);
        // What follows is not known here.
        inner.events.emit(|| EventKind::Completed { verdict: Verdict::Success, elapsed: None });
        Ok(())
    }

    /// Whether a call of `key` that costs one token would pass now. Takes nothing, tells no observer.
    ///
    /// # Errors
    ///
    /// As [`check_key`](Self::check_key).
    pub fn peek_key(&self, key: &K) -> Result<(), Rejection> {
        let inner = &*self.shared;
        let decision = inner.table.check(self.hasher.hash_one(key), inner.time.now(), 1, true);
        decision.result.map_err(|rejection| inner.rejection(inner.events.name().clone(), rejection))
    }

    /// Runs `future` if `key` has a token for it.
    ///
    /// # Errors
    ///
    /// The future's own, or [`Rejection::RateLimited`]; then it is never polled.
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

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.shared.events.name()
    }

    /// How it stands. Counts the active keys, which reads the whole table.
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

/// How a [`KeyedRateLimiter`] stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedRateLimiterSnapshot {
    /// The rate of each key.
    pub rate: Rate,
    /// UnusedTokens that a key may use at one instant.
    pub burst: u32,
    /// Keys that have not all their tokens now.
    pub active_keys: usize,
    /// Memory of the table.
    pub bytes: usize,
    /// Calls that found all places taken.
    pub overflows: u64,
}
