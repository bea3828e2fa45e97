use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    handle::PerKey,
    inner::{Limits, MakeHandle, PerKeyInner},
};
use crate::{clock::TimeSource, error::ConfigError, name::Name};

/// Configures a [`PerKey`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `max_keys` | 1000 | more hosts than most clients have, and little memory |
/// | `idle_after` | 10 minutes | a handle that equals a new one is cheap to build again |
/// | `forget_after` | 24 hours | keeps the failures of a key that is called once an hour; a dead host does not occupy its entry forever |
/// | `clock` | tokio's | |
#[must_use]
pub struct PerKeyBuilder<K, H> {
    name: Name,
    make: Box<MakeHandle<H>>,
    limits: Limits,
    time: TimeSource,
    key: PhantomData<fn(K)>,
}

impl<K, H> PerKey<K, H> {
    /// Starts building a `PerKey` whose handles are created by `make`. `make` receives the handle's
    /// name: `<name>.<key>`, cut to 256 bytes.
    pub fn builder<F>(name: impl Into<Name>, make: F) -> PerKeyBuilder<K, H>
    where
        F: Fn(Name) -> Result<H, ConfigError> + Send + Sync + 'static,
    {
        PerKeyBuilder {
            name: name.into(),
            make: Box::new(make),
            limits: Limits {
                max_keys: 1000,
                idle_after: Duration::from_secs(600),
                forget_after: Duration::from_secs(24 * 3600),
            },
            time: TimeSource::default(),
            key: PhantomData,
        }
    }
}

impl<K, H> PerKeyBuilder<K, H> {
    /// Sets the maximum number of keys that have a handle of their own at the same time; at least 1.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.limits.max_keys = keys;
        self
    }

    /// Sets how long a handle that equals a new one must go unused before it may be evicted; at
    /// least 1 ms.
    pub fn idle_after(mut self, time: Duration) -> Self {
        self.limits.idle_after = time;
        self
    }

    /// Sets how long a handle with a [history](super::EvictionLoss::History) must go unused before
    /// it may be evicted, once the map is full. If this is shorter than `idle_after`, that applies.
    ///
    /// A client of many short-lived hosts may want a shorter time: hosts that failed and are gone
    /// occupy their entries for this long.
    pub fn forget_after(mut self, time: Duration) -> Self {
        self.limits.forget_after = time;
        self
    }

    clock_setter!();

    /// Builds the map and its [`overflow`](PerKey::overflow) handle.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] if a field is out of range, or if making the overflow handle fails.
    pub fn build(self) -> Result<PerKey<K, H>, ConfigError> {
        self.check().map_err(|error| error.of(&self.name))?;
        let overflow = (self.make)(self.name.with_suffix("overflow"))?;
        let Self { name, make, limits, time, .. } = self;
        Ok(PerKey(Arc::new(PerKeyInner::new(name, make, overflow, limits, time))))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.limits.max_keys == 0 {
            return Err(ConfigError::new("max_keys", "is zero: no key could have a handle of its own"));
        }
        if self.limits.idle_after < Duration::from_millis(1) {
            return Err(ConfigError::new("idle_after", "must be at least 1 ms"));
        }
        Ok(())
    }
}

impl<K, H> fmt::Debug for PerKeyBuilder<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyBuilder").field("name", &self.name).field("limits", &self.limits).finish_non_exhaustive()
    }
}
