//! The state that all handles and calls of one keyed limiter share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    call::{EventOnly, HasEvents},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::EventEmitter,
    name::Name,
    rate_limit::Rate,
    shared::striped::StripedRef,
    state::{
        gcra::GcraRejection,
        keyed::{Keyed, KeyedDecision, KeyedTokens},
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
    /// Consumes `cost` tokens of the key with this hash, or none. If hashing or the clock panics,
    /// the call is cancelled.
    #[inline]
    pub(super) fn take(&self, hash: impl FnOnce() -> u64, cost: u32) -> Result<(), Rejection> {
        let arriving = self.events.arriving();
        let (hash, now) = (hash(), self.time.now());
        arriving.arrived();
        let KeyedDecision { result, overflow } = self.table.check(hash, now, cost, false);
        self.count_overflow(overflow);
        result.map_err(|rejection| self.events.reject(|name| self.rejection(name, rejection)))
    }

    /// Consumes `cost` tokens, or none, and refunds them if the guard is dropped. Reports nothing.
    pub(super) fn take_refundable(&self, hash: u64, cost: u32) -> Result<TakenTokens<'_>, Rejection> {
        let now = self.time.now();
        let (KeyedDecision { result, overflow }, tokens) = self.table.check_refundable(hash, now, cost, false);
        self.count_overflow(overflow);
        match result {
            Ok(()) => Ok(TakenTokens { limiter: self, hash, tokens: Some(tokens), taken_at: now }),
            Err(rejection) => Err(self.rejection(self.events.name().clone(), rejection)),
        }
    }

    /// The rejection that a call of this key would get, if any. Reports nothing.
    pub(super) fn peek(&self, hash: u64, cost: u32) -> Option<Rejection> {
        let rejection = self.table.check(hash, self.time.now(), cost, true).result.err()?;
        Some(self.rejection(self.events.name().clone(), rejection))
    }

    fn count_overflow(&self, overflow: bool) {
        if overflow {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Consumes a token of the limiter that all requests without a key share.
    pub(super) fn take_missing_key(&self) -> Result<(), Rejection> {
        self.take(|| self.no_key, 1)
    }

    pub(super) fn reject(&self) -> Rejection {
        self.events.reject(|name| self.rejection(name, GcraRejection::Never))
    }

    pub(super) fn rejection(&self, name: Name, rejection: GcraRejection) -> Rejection {
        Rejection::RateLimited { limit: self.table.burst(), name, retry_after: rejection.retry_after() }
    }
}

/// Tokens of a call that other limiters have not admitted yet. Dropping them refunds them.
pub(super) struct TakenTokens<'a> {
    limiter: &'a KeyedInner,
    hash: u64,
    tokens: Option<KeyedTokens>,
    taken_at: Nanos,
}

impl TakenTokens<'_> {
    /// Keeps the tokens spent.
    pub(super) fn spend(mut self) {
        self.tokens = None;
    }

    /// Refunds the tokens, unless they have refilled by now.
    pub(super) fn refund(mut self) {
        // If the clock panics, the tokens are refunded on drop.
        let now = self.limiter.time.now();
        if let Some(tokens) = self.tokens.take() {
            self.limiter.table.refund(self.hash, tokens, now);
        }
    }
}

impl Drop for TakenTokens<'_> {
    /// Only for a panic: reads no clock, which might panic too.
    fn drop(&mut self) {
        if let Some(tokens) = self.tokens.take() {
            self.limiter.table.refund(self.hash, tokens, self.taken_at);
        }
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
