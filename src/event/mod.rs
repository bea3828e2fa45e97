//! Events, and the [`Observer`] that receives them.
//!
//! A handle can have one observer (`.observer(..)` on its builder). It receives an [`Event`],
//! borrowed and without allocation, for every step of a call and every change of state. A handle
//! without one pays one predictable branch per event. For each request that reaches a layer there
//! is exactly one terminal event: [`Rejected`](EventKind::Rejected),
//! [`Completed`](EventKind::Completed) or [`Cancelled`](EventKind::Cancelled).
//!
//! Observers run on the call path: be quick, do not block. The layer commits its state before it
//! calls the observer, so a panicking observer affects only its own call. If it panics while
//! another panic unwinds, its panic is contained.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
//! use tower_rampart::event::{Event, EventKind, Observer};
//!
//! #[derive(Default)]
//! struct Rejections(AtomicU64);
//!
//! impl Observer for Rejections {
//!     fn on_event(&self, event: &Event<'_>) {
//!         if let EventKind::Rejected { .. } = event.kind {
//!             self.0.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! let rejections = Arc::new(Rejections::default()); // an `Arc` of an observer is an observer, so keep a clone to read it
//! # let _: Arc<dyn Observer> = rejections;
//! ```

mod emitter;
#[cfg(feature = "metrics")]
mod metric_names;
#[cfg(feature = "metrics")]
mod metrics;
mod misfit;
mod observer;
#[cfg(feature = "tracing")]
mod tracing;

use std::time::Duration;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
pub use self::observer::Observer;
#[cfg(feature = "tracing")]
pub use self::tracing::TracingObserver;
pub(crate) use emitter::{Arriving, EventEmitter};
pub(crate) use misfit::Misfit;

pub use crate::state::transition::{Cause, CircuitState};
use crate::{error::Rejection, name::Name, pattern::Pattern, verdict::Verdict};

/// An event in one instance of a pattern.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The pattern.
    pub pattern: Pattern,
    /// The instance's name.
    pub name: &'a Name,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// The call may proceed to the inner service.
    Admitted,
    /// The call was rejected, or timed out. Terminal.
    Rejected {
        /// The rejection that the caller gets.
        rejection: &'a Rejection,
    },
    /// The call completed with a result, or its service panicked. Terminal.
    Completed {
        /// How the result counts. Patterns without a classifier report success for `Ok` and failure
        /// for `Err`. A panic of the service, in its `call` or in its future, is a failure, also if
        /// it is caught before the call's future is dropped.
        verdict: Verdict,
        /// Time from admission to completion, if the pattern measures it anyway.
        elapsed: Option<Duration>,
    },
    /// The call was dropped before it completed, by its caller or by a panic that is not the
    /// service's: that of another future in the same task, or of a classifier, a clock or an
    /// observer. Terminal.
    Cancelled {
        /// Whether the call had been admitted; `false` if it was still waiting for a permit or a
        /// token, or had just arrived.
        admitted: bool,
        /// Time from admission to cancellation, if the pattern measures it anyway.
        elapsed: Option<Duration>,
    },
    /// A circuit breaker changed state. There is exactly one event for each transition, emitted by
    /// the thread that made it. If transitions on different threads follow each other closely, the
    /// later event may be emitted first: `generation` restores their order.
    StateChanged {
        /// The previous state.
        from: CircuitState,
        /// The new state.
        to: CircuitState,
        /// Grows with every transition, not always by one, and wraps around after 262,143. If a
        /// `PerKey` evicts the breaker, the next one of the same name begins at 1 again.
        generation: u64,
        /// The cause of the transition.
        cause: Cause,
    },
    /// A retry will be sent after a delay.
    RetryScheduled {
        /// The number of the coming attempt: 2 for the first retry.
        attempt: u32,
        /// The delay before it.
        delay: Duration,
    },
    /// The result is retryable, but no attempts or no time are left.
    RetriesExhausted {
        /// The number of attempts made.
        attempts: u32,
    },
    /// The result is retryable, but the retry budget is empty.
    BudgetExhausted {
        /// The number of attempts made.
        attempts: u32,
        /// Whether this call is the first of an exhaustion. It is `false` for all further calls
        /// until the budget has recovered, and for exhaustions that begin less than ten seconds
        /// after the last one. If several retries share a budget, one of them reports it.
        first: bool,
    },
    /// The retry budget was exhausted and is full again. Not an event of a call. Each recovery
    /// follows an exhaustion whose first call was reported.
    BudgetRecovered,
    /// The call waited for a permit or a token and got it.
    WaitCompleted {
        /// The time it waited.
        waited: Duration,
    },
    /// A [`PerKey`](crate::per_key::PerKey) was full and evicted the handle, along with the history
    /// of its calls. Not an event of a call.
    Evicted,
    /// A fallback was served instead of the result.
    FallbackServed {
        /// The kind of substitute.
        served: Served,
    },
}

/// The kind of substitute that a fallback served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Served {
    /// A fixed value.
    Value,
    /// The result of a function of the request and the error.
    Function,
    /// Another service's response.
    Service,
}

impl Served {
    /// A short, stable label for logs and metrics, such as `"value"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Function => "function",
            Self::Service => "service",
        }
    }
}
