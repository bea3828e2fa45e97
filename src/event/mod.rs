//! The hook: what every layer tells an [`Observer`].
//!
//! A handle may be given one observer (`.observer(..)` on its builder). It receives an [`Event`], borrowed and without
//! allocation, whenever something happens. A handle without one pays one predictable branch per event. For each request
//! that reaches a layer there is exactly one terminal event: [`Rejected`](EventKind::Rejected),
//! [`Completed`](EventKind::Completed) or [`Cancelled`](EventKind::Cancelled).
//!
//! Observers run on the path of the call: be quick, do not block. The layer's state is committed before the observer
//! is called, so one that panics spoils its own call only.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
//! use tower_rampart::event::{Event, EventKind, Observer};
//!
//! #[derive(Default)]
//! struct Refusals(AtomicU64);
//!
//! impl Observer for Refusals {
//!     fn on_event(&self, event: &Event<'_>) {
//!         if let EventKind::Rejected { .. } = event.kind {
//!             self.0.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! let refusals = Arc::new(Refusals::default()); // an `Arc` of an observer is one, so that you can keep a hand on it
//! # let _: Arc<dyn Observer> = refusals;
//! ```

mod emitter;
#[cfg(feature = "metrics")]
mod metrics;
mod observer;
#[cfg(feature = "tracing")]
mod tracing;

use std::time::Duration;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
pub use self::observer::Observer;
#[cfg(feature = "tracing")]
pub use self::tracing::TracingObserver;
pub(crate) use emitter::EventEmitter;

pub use crate::state::transition::{Cause, CircuitState};
use crate::{error::Rejection, name::Name, pattern::Pattern, verdict::Verdict};

/// Something that happened in one instance of a pattern.
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
    /// The call may go on to the service.
    Admitted,
    /// The call was refused or given up. Terminal.
    Rejected {
        /// What the caller gets.
        rejection: &'a Rejection,
    },
    /// The call ended with a result. Terminal.
    Completed {
        /// How the result counts. Patterns that do not judge say success for `Ok` and failure for `Err`.
        verdict: Verdict,
        /// Time from admission to the end, when it is known anyway.
        elapsed: Option<Duration>,
    },
    /// The call's future was dropped before it ended, or panicked. Terminal.
    Cancelled {
        /// Whether it was admitted before; `false` when it was still waiting for a permit or a token.
        admitted: bool,
        /// Time from admission until then, when it is known anyway.
        elapsed: Option<Duration>,
    },
    /// A circuit breaker changed its state. Exactly one event for each transition, told by the thread that made it. Of
    /// transitions that follow each other within moments on different threads the later may be told first:
    /// `generation` restores their order.
    StateChanged {
        /// The state it left.
        from: CircuitState,
        /// The state it is in now.
        to: CircuitState,
        /// Grows with every transition, not always by one, and begins again after 262,143.
        generation: u64,
        /// Why.
        cause: Cause,
    },
    /// A retry will be sent after a delay.
    RetryScheduled {
        /// Number of the attempt to come: 2 for the first retry.
        attempt: u32,
        /// The delay before it.
        delay: Duration,
    },
    /// The result would deserve a retry, but attempts or time are used up.
    RetriesExhausted {
        /// Attempts that were made.
        attempts: u32,
    },
    /// The result would deserve a retry, but the retry budget is empty.
    BudgetExhausted {
        /// Attempts that were made.
        attempts: u32,
    },
    /// A permit or a token was waited for, and got.
    WaitCompleted {
        /// How long it took.
        waited: Duration,
    },
    /// A fallback was served instead of the result.
    FallbackServed {
        /// What was served.
        served: Served,
    },
}

/// What a fallback served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Served {
    /// A fixed value.
    Value,
    /// What a function made of the request and the error.
    Function,
    /// Another service's answer.
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
