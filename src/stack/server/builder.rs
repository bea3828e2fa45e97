use std::{fmt, time::Duration};

use super::ServerStack;
use crate::{
    classify::{Classify, DefaultClassifier, Verdict},
    error::ConfigError,
    name::Name,
    stack::{
        parts_builder::{Defaults, PartsBuilder, part_setters},
        setting::Setting,
        validate::validate,
    },
};

const DEFAULTS: Defaults = Defaults {
    total: Duration::from_secs(10),
    attempt: Duration::MAX,
    max_concurrent: 256,
    max_wait: Duration::from_millis(100),
};

/// Returns the builder of a server stack. See the [module docs](crate::stack).
pub fn server(name: impl Into<Name>) -> ServerBuilder {
    let mut parts = PartsBuilder::new(name.into());
    parts.breaker = Setting::Disabled;
    parts.attempt = Setting::Disabled;
    ServerBuilder { parts, classify: DefaultClassifier }
}

/// Configures a [`ServerStack`].
///
/// # Defaults
///
/// | part | default | reason |
/// |---|---|---|
/// | total timeout | 10 s | no request holds its permit forever |
/// | rate limiter | none | only you know the rate |
/// | circuit breaker | none | a server should rarely reject requests because of its own failures |
/// | bulkhead | 256 requests, and 256 more wait for up to 100 ms | a bounded queue absorbs bursts; beyond it, a quick rejection is better than a late response |
///
/// The fault lab's figures for these:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
///
/// Defaults follow the limits that you set: a wait of the default bulkhead is at most four fifths
/// of the total timeout, and the default total timeout is at least five quarters of the waits
/// inside.
///
/// The parts have the stack's name. Custom handles keep their own names and observers.
#[must_use]
pub struct ServerBuilder<C = DefaultClassifier> {
    parts: PartsBuilder,
    classify: C,
}

impl<C> ServerBuilder<C> {
    part_setters!();

    /// Sets the classifier of the breaker.
    pub fn classify<D>(self, classify: D) -> ServerBuilder<D> {
        ServerBuilder { parts: self.parts, classify }
    }

    /// Classifies results with a closure, for the breaker.
    pub fn classify_with<G, T, E>(self, classify: G) -> ServerBuilder<G>
    where
        G: Fn(Result<&T, &E>) -> Verdict,
        G: Classify<T, E>,
    {
        self.classify(classify)
    }

    /// Builds the stack.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the total timeout is zero, or if a wait for a permit or a token is not
    /// below it.
    pub fn build(self) -> Result<ServerStack<C>, ConfigError> {
        let name = self.parts.name.clone();
        let parts = self.parts.build(&DEFAULTS, None, self.classify)?;
        validate(&parts, None).map_err(|error| error.of(&name))?;
        Ok(ServerStack { name, parts })
    }
}

impl<C> fmt::Debug for ServerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("name", &self.parts.name).finish_non_exhaustive()
    }
}
