//! The settings that both stacks have, and the parts built from them.

use std::{sync::Arc, time::Duration};

use super::{parts::StackParts, setting::Setting};
use crate::{
    bulkhead::Bulkhead, call::Part, circuit_breaker::CircuitBreaker, error::ConfigError, event::Observer, name::Name,
    rate_limit::RateLimiter, timeout::Timeout,
};

/// The settings of a stack's parts, other than the retry.
pub(super) struct PartsBuilder {
    pub(super) name: Name,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) total: Setting<Duration>,
    pub(super) limiter: Option<RateLimiter>,
    pub(super) breaker: Setting<CircuitBreaker>,
    pub(super) bulkhead: Setting<Bulkhead>,
    pub(super) attempt: Setting<Duration>,
}

/// The defaults of a stack's parts. The breaker's are those of its own builder.
pub(super) struct Defaults {
    pub(super) total: Duration,
    pub(super) attempt: Duration,
    pub(super) max_concurrent: u32,
    pub(super) max_wait: Duration,
}

impl Defaults {
    /// Fits the defaults to the limits that were set: a default inside of a limit is at most four
    /// fifths of it, and one outside is at least five quarters of it.
    fn fitted(&self, given: &PartsBuilder, retry_deadline: Option<Duration>) -> Self {
        let Self { total, attempt, max_concurrent, max_wait } = *self;
        let inside = |limit: Duration| limit / 5 * 4;
        let outside = |limit: Duration| limit.saturating_add(limit / 4);
        let slow = match &given.breaker {
            Setting::Custom(breaker) => breaker.slow_after(),
            _ => None,
        };
        let attempt = slow.map_or(attempt, |slow| attempt.max(outside(slow)));
        if let Setting::Custom(total) = given.total {
            return Self {
                total,
                attempt: attempt.min(inside(total)),
                max_concurrent,
                max_wait: max_wait.min(inside(total)),
            };
        }
        let pace = given.limiter.as_ref().map(|limiter| limiter.snapshot().max_wait);
        let queue = match &given.bulkhead {
            Setting::Custom(bulkhead) => Some(bulkhead.snapshot().max_wait),
            _ => None,
        };
        let limit = match given.attempt {
            Setting::Custom(limit) => Some(limit),
            Setting::Default => Some(attempt),
            Setting::Disabled => None,
        };
        let inner = [pace, queue, limit].into_iter().flatten().fold(Duration::ZERO, Duration::saturating_add);
        let total = total.max(outside(inner)).max(retry_deadline.unwrap_or_default());
        Self { total, attempt, max_concurrent, max_wait }
    }
}

impl PartsBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            observer: None,
            total: Setting::Default,
            limiter: None,
            breaker: Setting::Default,
            bulkhead: Setting::Default,
            attempt: Setting::Default,
        }
    }

    /// Builds the parts around a retry with this deadline, if there is one.
    pub(super) fn build<C>(
        self,
        defaults: &Defaults,
        retry_deadline: Option<Duration>,
        classify: C,
    ) -> Result<StackParts<C>, ConfigError> {
        let defaults = defaults.fitted(&self, retry_deadline);
        let Self { name, observer, total, limiter, breaker, bulkhead, attempt } = self;
        let timeout = |name: Name, limit| {
            let builder = Timeout::builder(name, limit);
            match &observer {
                Some(observer) => builder.observer(observer.clone()).build(),
                None => builder.build(),
            }
        };
        let default_breaker = || {
            let builder = CircuitBreaker::builder(name.clone());
            match &observer {
                Some(observer) => builder.observer(observer.clone()).build(),
                None => builder.build(),
            }
        };
        let default_bulkhead = || {
            let builder = Bulkhead::builder(name.clone());
            let builder = builder.max_concurrent(defaults.max_concurrent).max_wait(defaults.max_wait);
            match &observer {
                Some(observer) => builder.observer(observer.clone()).build(),
                None => builder.build(),
            }
        };
        let total = total.resolve(|| Ok(defaults.total))?.map(|limit| timeout(name.clone(), limit));
        let attempt = attempt.resolve(|| Ok(defaults.attempt))?;
        let attempt = attempt.map(|limit| timeout(name.with_suffix("attempt"), limit));
        Ok(StackParts {
            total: Part::new(total),
            limiter: Part::new(limiter),
            breaker: Part::new(breaker.resolve(default_breaker)?),
            bulkhead: Part::new(bulkhead.resolve(default_bulkhead)?),
            attempt: Part::new(attempt),
            classify,
        })
    }
}

/// The setters of a builder with a field `parts`.
macro_rules! part_setters {
    () => {
        /// Sets the observer that receives the events of all parts but custom handles.
        pub fn observer(mut self, observer: impl $crate::event::Observer) -> Self {
            self.parts.observer = Some(std::sync::Arc::new(observer));
            self
        }

        /// Sets the time limit of a whole call, retries and waits included.
        pub fn total_timeout(mut self, limit: std::time::Duration) -> Self {
            self.parts.total = $crate::stack::setting::Setting::Custom(limit);
            self
        }

        /// Removes the total timeout.
        pub fn without_total_timeout(mut self) -> Self {
            self.parts.total = $crate::stack::setting::Setting::Disabled;
            self
        }

        /// Sets the rate limiter.
        pub fn rate_limiter(mut self, limiter: &$crate::rate_limit::RateLimiter) -> Self {
            self.parts.limiter = Some(limiter.clone());
            self
        }

        /// Sets the circuit breaker.
        pub fn circuit_breaker(mut self, breaker: &$crate::circuit_breaker::CircuitBreaker) -> Self {
            self.parts.breaker = $crate::stack::setting::Setting::Custom(breaker.clone());
            self
        }

        /// Sets the bulkhead.
        pub fn bulkhead(mut self, bulkhead: &$crate::bulkhead::Bulkhead) -> Self {
            self.parts.bulkhead = $crate::stack::setting::Setting::Custom(bulkhead.clone());
            self
        }

        /// Removes the bulkhead.
        pub fn without_bulkhead(mut self) -> Self {
            self.parts.bulkhead = $crate::stack::setting::Setting::Disabled;
            self
        }
    };
}

/// The accessors of a stack with fields `name` and `parts`.
macro_rules! part_accessors {
    () => {
        /// Returns the name of the stack.
        pub fn name(&self) -> &$crate::Name {
            &self.name
        }

        /// Returns the total timeout, if the stack has one.
        pub fn total_timeout(&self) -> Option<&$crate::timeout::Timeout> {
            self.parts.total.as_option()
        }

        /// Returns the rate limiter, if the stack has one.
        pub fn rate_limiter(&self) -> Option<&$crate::rate_limit::RateLimiter> {
            self.parts.limiter.as_option()
        }

        /// Returns the circuit breaker, if the stack has one.
        pub fn circuit_breaker(&self) -> Option<&$crate::circuit_breaker::CircuitBreaker> {
            self.parts.breaker.as_option()
        }

        /// Returns the bulkhead, if the stack has one.
        pub fn bulkhead(&self) -> Option<&$crate::bulkhead::Bulkhead> {
            self.parts.bulkhead.as_option()
        }
    };
}

pub(super) use part_accessors;
pub(super) use part_setters;
