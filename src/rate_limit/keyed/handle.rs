use std::{
    borrow::Borrow,
    fmt,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::atomic::Ordering,
};

use super::{
    KeyedRateLimiterBuilder,
    inner::{KeyedInner, SpentToken},
    outer::{Outers, TakeInner, longest_wait, take_around},
};
use crate::{
    call::{CancelOnDrop, Guarded, LeafCall, WithShared},
    classify::Verdict,
    error::{FromRejection, Rejection},
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
/// Time is counted in 64ths of a token's period, and in eighths at the highest rates: a token may
/// come earlier by that fraction than the rate says, but never more of them in the long run.
///
/// # Limits within limits
///
/// Where one client has many keys, it can fill the table, and then other clients' new keys are
/// limited together. A holder of an IPv6 /48 has 65,536 /64 networks: against a limit of 5 calls in
/// 15 minutes, which occupies a slot for three minutes per call, 182 calls a second are enough to
/// fill the default table. [`within`](KeyedRateLimiterBuilder::within) puts the limiter into
/// another, of wider keys. A call is then admitted if all levels admit it, and takes tokens of all
/// or of none. Wider levels are asked first, and a key gets a slot only once they have admitted the
/// call, so the slots that a network occupies are bounded by the network's own limit.
///
/// ```
/// use std::{net::{IpAddr, Ipv6Addr}, time::Duration};
/// use tower_rampart::rate_limit::{KeyedRateLimiter, Rate};
///
/// fn network(ip: &Ipv6Addr, bits: u32) -> Ipv6Addr {
///     Ipv6Addr::from_bits(ip.to_bits() >> (128 - bits) << (128 - bits))
/// }
///
/// let per_15_minutes = |calls| Rate::new(calls, Duration::from_secs(15 * 60));
/// let sites = KeyedRateLimiter::<Ipv6Addr>::builder("per-48", per_15_minutes(100)).build()?;
/// let homes = KeyedRateLimiter::<Ipv6Addr>::builder("per-56", per_15_minutes(20))
///     .within(&sites, |home| Some(network(home, 48)))
///     .build()?;
/// // The keys are IPv4 addresses, and /64 networks.
/// let clients = KeyedRateLimiter::<IpAddr>::builder("per-client", per_15_minutes(5))
///     .within(&homes, |client| match client {
///         IpAddr::V4(_) => None, // no further level
///         IpAddr::V6(ip) => Some(network(ip, 56)),
///     })
///     .build()?;
///
/// let client = |subnet| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, 0));
/// assert_eq!((0..256).filter(|subnet| clients.check_key(&client(*subnet)).is_ok()).count(), 20);
/// assert_eq!(clients.check_key(&client(0)).unwrap_err().name(), "per-56");
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
///
/// Each level has a table of its own, and its own [`WhenFull`](super::WhenFull). With
/// [`WhenFull::Share`](super::WhenFull::Share) a full level is stricter, never looser.
///
/// The rate is fixed. To change it, create another limiter.
///
/// Cheap to clone. All clones share the table. `H` hashes the keys.
pub struct KeyedRateLimiter<K: ?Sized, H = RandomState> {
    pub(super) shared: StripedArc<KeyedInner>,
    hasher: H,
    /// The limiters around this one, if there are any.
    outers: Option<Outers<K>>,
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
    /// rejection writes nothing, except that it counts an overflow if the key found no free slot. A
    /// limiter within others asks each level twice, with a hash and a clock read each time.
    ///
    /// # Errors
    ///
    /// [`Rejection::RateLimited`], with the time after which the call would be admitted. It bears
    /// the name of the level that rejects for the longest.
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
        self.take(key, cost)?;
        // The limiter does not know the result of the call that follows.
        CancelOnDrop::new(inner, SpentToken::admitted(&inner.events)).finish(Verdict::Success);
        Ok(())
    }

    /// Checks whether a call of `key` that costs one token would be admitted now. Consumes no token
    /// and emits no event.
    ///
    /// # Errors
    ///
    /// As [`check_key`](Self::check_key).
    pub fn peek_key(&self, key: &K) -> Result<(), Rejection> {
        self.peek(key, 1).map_or(Ok(()), Err)
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
        self.take(key, 1)?;
        let shared = &*self.shared;
        let token = SpentToken::admitted(&shared.events);
        WithShared::new(shared, Guarded::started(LeafCall::new(future), Some(token))).await
    }

    pub(super) fn take(&self, key: &K, cost: u32) -> Result<(), Rejection> {
        if self.outers.is_none() {
            return self.shared.take(|| self.hasher.hash_one(key), cost);
        }
        self.take_all(key, cost)
    }

    /// As [`take`](Self::take), with a key that is dropped before the call is admitted: its
    /// destructor is foreign code.
    pub(super) fn take_owned<B: Borrow<K>>(&self, key: B) -> Result<(), Rejection> {
        if self.outers.is_none() {
            let hash = move || self.hasher.hash_one(key.borrow());
            return self.shared.take(hash, 1);
        }
        let taken = self.take_all(key.borrow(), 1);
        let arriving = self.shared.events.arriving();
        drop(key);
        arriving.arrived();
        taken
    }

    /// Consumes tokens of all levels, or none.
    #[inline(never)]
    fn take_all(&self, key: &K, cost: u32) -> Result<(), Rejection> {
        // The keys and the clocks are foreign code: if one panics, the call is cancelled.
        let arriving = self.shared.events.arriving();
        // Asked first, so that a call that any level rejects writes nothing. The tokens may still
        // be taken by other callers meanwhile, and are then refunded.
        let taken = match self.peek(key, cost) {
            Some(rejection) => Err(rejection),
            None => self.take_around(key, cost, &mut || Ok(())),
        };
        arriving.arrived();
        taken.map_err(|rejection| self.shared.events.reject(|_| rejection))
    }

    /// The rejection that a call would get, if any: of all levels, the one with the longest wait.
    pub(super) fn peek(&self, key: &K, cost: u32) -> Option<Rejection> {
        let own = self.shared.peek(self.hasher.hash_one(key), cost);
        let outers = self.outers().iter().filter_map(|outer| outer.peek(key, cost));
        longest_wait(own.into_iter().chain(outers))
    }

    /// Takes tokens of the outer levels, then of this one, then calls `inner`. If that fails or
    /// panics, the tokens are refunded.
    pub(super) fn take_around(&self, key: &K, cost: u32, inner: &mut TakeInner<'_>) -> Result<(), Rejection> {
        let hash = self.hasher.hash_one(key);
        take_around(self.outers(), key, cost, &mut || {
            let tokens = self.shared.take_refundable(hash, cost)?;
            let result = inner();
            match result {
                Ok(()) => tokens.spend(),
                Err(_) => tokens.refund(),
            }
            result
        })
    }

    fn outers(&self) -> &[std::sync::Arc<dyn super::outer::Outer<K>>] {
        self.outers.as_deref().unwrap_or_default()
    }
}

impl<K: ?Sized, H> KeyedRateLimiter<K, H> {
    pub(super) fn from_parts(shared: StripedArc<KeyedInner>, hasher: H, outers: Option<Outers<K>>) -> Self {
        Self { shared, hasher, outers, key: PhantomData }
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
        Self { shared: self.shared.clone(), hasher: self.hasher.clone(), outers: self.outers.clone(), key: PhantomData }
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
