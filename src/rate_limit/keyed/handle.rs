use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::layer::SpentTokens;
use crate::{
    call::CancelOnDrop,
    classify::Verdict,
    clock::{Clock, TimeSource},
    error::{ConfigError, FromRejection, Rejection},
    event::{EventEmitter, EventKind, Observer, Pattern},
    name::Name,
    rate_limit::{Rate, builder::check_rate},
    shared::striped::StripedArc,
    state::{
        gcra::GcraRejection,
        keyed::{Keyed, KeyedDecision},
    },
};

/// Of a token. The shorter one is what the table can count.
const LEAST_PERIOD: Duration = Duration::from_micros(10);
const _: () = assert!(LEAST_PERIOD.as_nanos() >= Keyed::MIN_PERIOD.as_nanos());
const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);

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

pub(super) struct KeyedInner {
    table: Keyed,
    rate: Rate,
    /// Of all requests that have no key. A fixed hash: a key that has the same one shares its limiter.
    no_key: u64,
    overflows: AtomicU64,
    pub(super) events: EventEmitter,
    time: TimeSource,
}

/// What happens to a new key while all the places it may have are taken by keys that are being limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It shares one limiter, of the same rate and burst, with the others for whom there is no place. When it gets a
    /// place of its own, it starts there with all its tokens.
    #[default]
    Share,
    /// It is refused.
    Refuse,
}

impl<K: Hash + ?Sized> KeyedRateLimiter<K> {
    /// A limiter of `rate` per key, to be changed.
    pub fn builder(name: impl Into<Name>, rate: Rate) -> KeyedRateLimiterBuilder<K> {
        KeyedRateLimiterBuilder {
            name: name.into(),
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
        let held = CancelOnDrop::new(shared, SpentTokens::admitted(&shared.events));
        let result = future.await;
        held.complete(result.as_ref());
        result
    }

    pub(super) fn take(&self, key: &K) -> Result<(), Rejection> {
        self.shared.take(self.hasher.hash_one(key), 1)
    }
}

impl<K: ?Sized, H> KeyedRateLimiter<K, H> {
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

impl KeyedInner {
    pub(super) fn take(&self, hash: u64, cost: u32) -> Result<(), Rejection> {
        let KeyedDecision { result, overflow } = self.table.check(hash, self.time.now(), cost, false);
        if overflow {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        result.map_err(|rejection| self.events.reject(|name| self.rejection(name, rejection)))
    }

    /// Of the one limiter of all requests that have no key.
    pub(super) fn take_without_key(&self) -> Result<(), Rejection> {
        self.take(self.no_key, 1)
    }

    pub(super) fn reject(&self) -> Rejection {
        self.events.reject(|name| self.rejection(name, GcraRejection::Never))
    }

    fn rejection(&self, name: Name, rejection: GcraRejection) -> Rejection {
        let retry_after = match rejection {
            GcraRejection::Wait(wait) => Some(wait),
            GcraRejection::Never => None,
        };
        Rejection::rate_limited(name, retry_after, self.table.burst())
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

    /// Who is told what happens.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Another clock than tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.time = TimeSource::custom(clock);
        self
    }

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
        crate::rate_limit::builder::params(self.rate, burst)?;
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
        Ok(KeyedRateLimiter { shared, hasher: self.hasher, key: PhantomData })
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
