use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{
    KeyedRateLimiter,
    inner::KeyedInner,
    outer::{Outer, Within},
};
use crate::{
    clock::TimeSource,
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    rate_limit::{
        Rate,
        builder::{check_rate, params},
    },
    shared::striped::StripedArc,
    state::keyed::Keyed,
};

/// The shortest supported time per token. The table's own minimum must not be longer.
const MIN_PERIOD: Duration = Duration::from_micros(10);
const _: () = assert!(MIN_PERIOD.as_nanos() >= Keyed::MIN_PERIOD.as_nanos());
const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);

/// The policy for a new key while all the table slots it could use are taken by keys that are being
/// limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It shares one limiter, of the same rate and burst, with the other keys in its part of the
    /// table that have no slot. When it gets its own slot, it starts there with all its tokens.
    #[default]
    Share,
    /// It is rejected.
    Reject,
}

/// Configures a [`KeyedRateLimiter`].
///
/// # Defaults
///
/// | field | default |
/// |---|---|
/// | `burst` | the rate's count |
/// | `max_keys` | 10,000: 288 KiB |
/// | `when_full` | [`WhenFull::Share`] |
/// | `observer` | none |
/// | `clock` | tokio's |
/// | `hasher` | the standard library's, randomly seeded |
#[must_use]
pub struct KeyedRateLimiterBuilder<K: ?Sized, H = RandomState> {
    name: Name,
    rate: Rate,
    burst: Option<u32>,
    max_keys: usize,
    when_full: WhenFull,
    observer: Option<Arc<dyn Observer>>,
    time: TimeSource,
    hasher: H,
    outers: Vec<Arc<dyn Outer<K>>>,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized> KeyedRateLimiterBuilder<K> {
    pub(super) fn new(name: Name, rate: Rate) -> Self {
        Self {
            name,
            rate,
            burst: None,
            max_keys: 10_000,
            when_full: WhenFull::default(),
            observer: None,
            time: TimeSource::default(),
            hasher: RandomState::new(),
            outers: Vec::new(),
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, H: BuildHasher> KeyedRateLimiterBuilder<K, H> {
    /// Sets the maximum number of tokens that a key can consume at one instant, from 1 to
    /// 67,108,863.
    pub fn burst(mut self, tokens: u32) -> Self {
        self.burst = Some(tokens);
        self
    }

    /// Sets the maximum number of keys that are limited at the same time, from 1 to 100 million.
    /// Each takes 18 to 36 bytes, allocated up front.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets the policy for new keys that find no free table slot.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Also limits each call by `outer`, under the key that `key` makes of this limiter's: the
    /// network of an address, the tenant of a user. If `key` returns `None`, the call is not
    /// limited by `outer`. Can be called several times, and `outer` can be within others itself.
    /// See [`KeyedRateLimiter`](KeyedRateLimiter#limits-within-limits).
    ///
    /// `outer` keeps its clock, and can be used on its own as well. Calls through this limiter are
    /// reported to this limiter's observer only. Requests without a key are not limited by `outer`.
    pub fn within<Q, F, P, O>(mut self, outer: &KeyedRateLimiter<Q, O>, key: F) -> Self
    where
        Q: Hash + ?Sized + 'static,
        F: Fn(&K) -> Option<P> + Send + Sync + 'static,
        P: Borrow<Q> + 'static,
        O: BuildHasher + Clone + Send + Sync + 'static,
    {
        self.outers.push(Arc::new(Within { limiter: outer.clone(), key, owned_key: PhantomData }));
        self
    }

    observer_setter!();

    clock_setter!();

    /// Sets the hash function of the keys, for example a faster one. If clients choose the keys, it
    /// must be seeded and hard to predict, or they can crowd their keys into one part of the table.
    /// All 64 bits of the hash are used, and clones of the hasher must produce the same hashes.
    pub fn hasher<N: BuildHasher>(self, hasher: N) -> KeyedRateLimiterBuilder<K, N> {
        let Self { name, rate, burst, max_keys, when_full, observer, time, hasher: _, outers, key } = self;
        KeyedRateLimiterBuilder { name, rate, burst, max_keys, when_full, observer, time, hasher, outers, key }
    }

    /// Builds the limiter, and allocates all its memory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a field is out of range, if the rate of a key is above 100,000 a second
    /// or below one a year, or if its period is longer than 584 years.
    pub fn build(self) -> Result<KeyedRateLimiter<K, H>, ConfigError> {
        self.check().map_err(|error| error.of(&self.name))?;
        let Rate { count, per } = self.rate;
        let burst = self.burst.unwrap_or(count);
        let table = Keyed::new(count, per, burst, self.max_keys, self.when_full == WhenFull::Share);
        let shared = StripedArc::new(KeyedInner {
            table,
            rate: self.rate,
            no_key: self.hasher.hash_one("no key"),
            overflows: AtomicU64::new(0),
            events: EventEmitter::new(Pattern::RateLimiter, self.name, self.observer),
            time: self.time,
        });
        let outers = (!self.outers.is_empty()).then(|| self.outers.into());
        Ok(KeyedRateLimiter::from_parts(shared, self.hasher, outers))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Rate { count, per } = self.rate;
        check_rate(self.rate)?;
        if u64::try_from(per.as_nanos()).is_err() {
            return Err(ConfigError::new("rate", "has a period of more than 584 years; use a shorter one"));
        }
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&(per / count)) {
            return Err(ConfigError::new("rate", "must be from one a year to 100,000 a second"));
        }
        params(self.rate, self.burst.unwrap_or(count))?;
        if !(1..=100_000_000).contains(&self.max_keys) {
            return Err(ConfigError::new("max_keys", "must be from 1 to 100 million"));
        }
        Ok(())
    }
}

impl<K: ?Sized, H> fmt::Debug for KeyedRateLimiterBuilder<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimiterBuilder")
            .field("name", &self.name)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .field("max_keys", &self.max_keys)
            .field("when_full", &self.when_full)
            .finish_non_exhaustive()
    }
}
