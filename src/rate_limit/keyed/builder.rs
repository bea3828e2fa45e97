use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    marker::PhantomData,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{KeyedRateLimiter, inner::KeyedInner};
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

/// Of a token. The shorter one is what the table can count.
const LEAST_PERIOD: Duration = Duration::from_micros(10);
const _: () = assert!(LEAST_PERIOD.as_nanos() >= Keyed::MIN_PERIOD.as_nanos());
const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);

/// What happens to a new key while all the places it may have are taken by keys that are being limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It shares one limiter, of the same rate and burst, with the others for whom there is no place. When it gets a
    /// place of its own, it starts there with all its tokens.
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
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, H: BuildHasher> KeyedRateLimiterBuilder<K, H> {
    /// UnusedTokens that a key may use at one instant, from 1 to 67,108,863.
    pub fn burst(mut self, tokens: u32) -> Self {
        self.burst = Some(tokens);
        self
    }

    /// How many keys may be limited at the same time, from 1 to 100 million. Takes 18 to 36 bytes each, at once.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// What happens to new keys when there is no place.
    pub fn when_full(mut self, then: WhenFull) -> Self {
        self.when_full = then;
        self
    }

    observer_setter!();

    clock_setter!();

    /// Another hash function for the keys, such as a faster one. Against keys that others choose it must be seeded and
    /// hard to predict, or they can crowd into one place of the table. All 64 bits of the hash are used, and clones of
    /// the hasher must hash alike.
    pub fn hasher<N: BuildHasher>(self, hasher: N) -> KeyedRateLimiterBuilder<K, N> {
        let Self { name, rate, burst, max_keys, when_full, observer, time, hasher: _, key } = self;
        KeyedRateLimiterBuilder { name, rate, burst, max_keys, when_full, observer, time, hasher, key }
    }

    /// The limiter. All its memory is allocated here.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a field out of its range, and for a rate above 100,000 a second and key or below one a year.
    pub fn build(self) -> Result<KeyedRateLimiter<K, H>, ConfigError> {
        let Rate { count, per } = self.rate;
        check_rate(self.rate)?;
        let period = per / count;
        if !(LEAST_PERIOD..=MAX_PERIOD).contains(&period) {
            return Err(ConfigError::new("rate", "must be from one a year to 100,000 a second"));
        }
        let burst = self.burst.unwrap_or(count);
        params(self.rate, burst)?;
        if !(1..=100_000_000).contains(&self.max_keys) {
            return Err(ConfigError::new("max_keys", "must be from 1 to 100 million"));
        }
        let table = Keyed::new(count, per, burst, self.max_keys, self.when_full == WhenFull::Share);
        let shared = StripedArc::new(KeyedInner {
            table,
            rate: self.rate,
            no_key: self.hasher.hash_one("no key"),
            overflows: AtomicU64::new(0),
            events: EventEmitter::new(Pattern::RateLimiter, self.name, self.observer),
            time: self.time,
        });
        Ok(KeyedRateLimiter::from_parts(shared, self.hasher))
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
