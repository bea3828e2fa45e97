use std::{fmt, future::Future, time::Duration};

use super::{
    Rate, RateLimitLayer, RateLimiterBuilder,
    builder::params,
    inner::{RateLimiterInner, SpentTokens, WaitForTokens},
    queue::Joined,
};
use crate::{
    call::{CancelOnDrop, Guarded, InFlight, LeafCall, WithShared},
    error::{ConfigError, FromRejection, Rejection},
    name::Name,
    shared::{striped::StripedArc, unwind},
    state::gcra::Slot,
    verdict::Verdict,
};

/// A handle to a limit on the rate of calls. See the [module docs](super).
///
/// Cheap to clone. All clones share the tokens.
#[derive(Clone)]
pub struct RateLimiter(pub(crate) StripedArc<RateLimiterInner>);

impl RateLimiter {
    /// Returns a builder with the defaults of [`RateLimiterBuilder`].
    pub fn builder(name: impl Into<Name>, rate: Rate) -> RateLimiterBuilder {
        RateLimiterBuilder::new(name.into(), rate)
    }

    /// Creates a limiter that rejects calls above the rate immediately, with bursts of up to a full
    /// period's worth.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] as for [`RateLimiterBuilder::build`].
    pub fn new(name: impl Into<Name>, rate: Rate) -> Result<Self, ConfigError> {
        Self::builder(name, rate).build()
    }

    /// Creates a limiter that spaces calls evenly, one each `per / count`: for a dependency that is
    /// sensitive to bursts. Calls wait for up to `max_wait` where waiting is requested.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn smooth(name: impl Into<Name>, rate: Rate, max_wait: Duration) -> Result<Self, ConfigError> {
        Self::builder(name, rate).burst(1).max_wait(max_wait).build()
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// Returns a layer that limits the rate of a service's calls and rejects the rest.
    pub fn layer(&self) -> RateLimitLayer {
        RateLimitLayer::new(self)
    }

    /// Consumes a token, without waiting.
    ///
    /// One read-modify-write and one clock read; a rejection writes nothing.
    ///
    /// # Errors
    ///
    /// [`Rejection::RateLimited`], with the time after which the call would be admitted if no other
    /// call comes first.
    #[inline]
    pub fn check(&self) -> Result<(), Rejection> {
        self.check_n(1)
    }

    /// Consumes `cost` tokens or none, without waiting.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check); without a time if the cost exceeds the burst, so that the call
    /// can never be admitted.
    #[inline]
    pub fn check_n(&self, cost: u32) -> Result<(), Rejection> {
        let admit = || {
            self.admitted().finish(NOT_KNOWN);
            Ok(())
        };
        self.0.check_as(cost, admit, Err)
    }

    /// Acquires `cost` tokens or none, without waiting. They can be refunded.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n).
    pub fn try_acquire(&self, cost: u32) -> Result<Token<'_>, Rejection> {
        let slot = self.0.take(cost)?;
        Ok(Token { slot, call: self.admitted() })
    }

    /// Checks whether a call with this cost would be admitted now. Consumes no token and emits no
    /// event.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n).
    pub fn peek(&self, cost: u32) -> Result<(), Rejection> {
        let limit = self.0.tokens.params().burst();
        self.0.tokens.peek(self.0.now(), cost).map_err(|rejection| Rejection::RateLimited {
            limit,
            name: self.name().clone(),
            retry_after: rejection.retry_after(),
        })
    }

    /// Consumes `cost` tokens, waiting until they are due, for up to `max_wait`.
    ///
    /// In order of arrival: no later caller overtakes a waiter that is polled when its tokens are
    /// due. Cancel-safe: dropping the future leaves the queue, and no tokens are spent.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n), immediately if the wait would be longer than `max_wait`; or
    /// when it has become longer than `max_wait` and 10 ms because the rate was lowered or the
    /// future was not polled in time.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime with time enabled.
    pub async fn acquire(&self, cost: u32) -> Result<(), Rejection> {
        self.admit(cost).await.map(|mut call| call.finish(NOT_KNOWN))
    }

    #[inline(always)]
    fn admitted(&self) -> CancelOnDrop<&RateLimiterInner, SpentTokens> {
        CancelOnDrop::new(&*self.0, SpentTokens::admitted(&self.0.events))
    }

    async fn admit(&self, cost: u32) -> Result<CancelOnDrop<&RateLimiterInner, SpentTokens>, Rejection> {
        let inner = &*self.0;
        match inner.tokens.join(inner.arrival_time(), cost, inner.max_wait) {
            Ok(Joined::Admitted(_)) => Ok(self.admitted()),
            Ok(Joined::Waits(ticket)) => Ok(CancelOnDrop::new(inner, WaitForTokens::new(inner, ticket).await?)),
            Err(rejection) => Err(inner.reject(rejection)),
        }
    }

    /// Runs `future` with a token, waiting for it as [`acquire`](Self::acquire) does.
    ///
    /// # Errors
    ///
    /// The future's own error, or the rejection of [`acquire`](Self::acquire).
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let (limiter, tokens) = self.admit(1).await?.disarm();
        WithShared::new(limiter, Guarded::started(LeafCall::new(future), Some(tokens))).await
    }

    /// Changes the rate and the burst while calls are in flight. The used part of the burst stays
    /// used, as a number of tokens. The new rate applies to calls that already wait, in their
    /// order; one that costs more than the new burst is rejected.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] as for [`RateLimiterBuilder::build`], in which case nothing changes.
    pub fn set_rate(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let params = params(rate, burst).map_err(|error| error.of(self.name()))?;
        // Read before the lock is taken, because a clock is foreign code.
        let now = self.0.now();
        self.0.tokens.set(rate, params, now);
        Ok(())
    }

    /// Returns a snapshot of the limiter.
    pub fn snapshot(&self) -> RateLimiterSnapshot {
        let now = self.0.now();
        let (rate, burst, available, full_after) = self.0.tokens.snapshot(now);
        RateLimiterSnapshot { rate, burst, available, full_after, max_wait: self.0.max_wait }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// The state of a [`RateLimiter`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimiterSnapshot {
    /// The rate.
    pub rate: Rate,
    /// The maximum number of tokens that can be consumed at one instant.
    pub burst: u32,
    /// Tokens available now that no call waits for.
    pub available: u32,
    /// The time until all tokens are available, if no further call takes any.
    pub full_after: Duration,
    /// The longest time a call may wait.
    pub max_wait: Duration,
}

/// Tokens acquired from a [`RateLimiter`]. Dropping it keeps them spent; [`refund`](Self::refund)
/// returns them.
///
/// The limiter does not know how the call ended, and reports it as a success, also if a panic drops
/// the token: the panic may be that of other code.
pub struct Token<'a> {
    slot: Slot,
    call: CancelOnDrop<&'a RateLimiterInner, SpentTokens>,
}

impl Token<'_> {
    /// Returns the tokens of a call that was never made.
    ///
    /// They are available immediately. Each token stands for a period of time, in the order in
    /// which they were taken; of a period that has passed nothing is returned, and of one that has
    /// begun only the rest, because the bucket could exceed its limit otherwise.
    pub fn refund(mut self) {
        let slot = std::mem::take(&mut self.slot);
        self.call.consume(|inner, tokens| {
            inner.tokens.cancel(slot);
            tokens.cancel(inner);
        });
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        unwind::contain(|| self.call.finish(NOT_KNOWN));
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// The verdict on a call that follows a check. The limiter does not know it, and reports a success.
const NOT_KNOWN: Verdict = Verdict::Success;
