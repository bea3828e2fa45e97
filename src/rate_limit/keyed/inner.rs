//! The state that all handles and calls of one keyed limiter share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    call::{EventOnly, HasEvents},
    clock::TimeSource,
    error::Rejection,
    event::EventEmitter,
    name::Name,
    rate_limit::Rate,
    shared::striped::StripedRef,
    state::{
        gcra::GcraRejection,
        keyed::{Keyed, KeyedDecision},
    },
};

pub(super) struct KeyedInner {
    pub(super) table: Keyed,
    pub(super) rate: Rate,
    /// The hash of all requests without a key. It is fixed: a key with the same hash shares their
    /// limiter.
    pub(super) no_key: u64,
    pub(super) overflows: AtomicU64,
    pub(super) events: EventEmitter,
    pub(super) time: TimeSource,
}

impl KeyedInner {
    /// Consumes `cost` tokens of the key with this hash, or none.
    pub(super) fn take(&self, hash: u64, cost: u32) -> Result<(), Rejection> {
        let KeyedDecision { result, overflow } = self.table.check(hash, self.time.now(), cost, false);
        if overflow {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        result.map_err(|rejection| self.events.reject(|name| self.rejection(name, rejection)))
    }

    /// Consumes a token of the limiter that all requests without a key share.
    pub(super) fn take_missing_key(&self) -> Result<(), Rejection> {
        self.take(self.no_key, 1)
    }

    pub(super) fn reject(&self) -> Rejection {
        self.events.reject(|name| self.rejection(name, GcraRejection::Never))
    }

    pub(super) fn rejection(&self, name: Name, rejection: GcraRejection) -> Rejection {
        let retry_after = match rejection {
            GcraRejection::Wait(wait) => Some(wait),
            GcraRejection::Never => None,
        };
        Rejection::rate_limited(name, retry_after, self.table.burst())
    }
}

/// The in-flight state of an admitted call. Its token is spent, so nothing is released when it
/// completes.
pub(super) type SpentToken = EventOnly<KeyedInner>;

impl HasEvents<KeyedInner> for KeyedInner {
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.events)
    }
}

impl HasEvents<KeyedInner> for Option<StripedRef<KeyedInner>> {
    fn events(&self) -> Option<&EventEmitter> {
        self.as_ref().map(|limiter| &limiter.events)
    }
}
