use std::{fmt, future::Future, sync::PoisonError, time::Duration};

use super::{
    Rate, RateLimitLayer, RateLimiterBuilder,
    builder::params,
    inner::{RateLimiterInner, SpentTokens, WaitForTokens},
};
use crate::{
    call::{CancelOnDrop, Complete, InFlight},
    error::{ConfigError, FromRejection, Rejection},
    name::Name,
    shared::striped::StripedArc,
    state::gcra::Slot,
};

/// At most so many calls in so much time. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones share the tokens.
#[derive(Clone)]
pub struct RateLimiter(pub(crate) StripedArc<RateLimiterInner>);

impl RateLimiter {
    /// A limiter with the defaults of [`RateLimiterBuilder`], to be changed.
    pub fn builder(name: impl Into<Name>, rate: Rate) -> RateLimiterBuilder {
        RateLimiterBuilder::new(name.into(), rate)
    }

    /// Refuses at once what exceeds the rate, with bursts of up to a full period's worth.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a number of the rate is zero or too large to count with.
    pub fn new(name: impl Into<Name>, rate: Rate) -> Result<Self, ConfigError> {
        Self::builder(name, rate).build()
    }

    /// Spaces calls evenly, one each `per / count`: for a dependency that minds bursts. Calls wait for up to `max_wait`
    /// where waiting is asked for.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn smooth(name: impl Into<Name>, rate: Rate, max_wait: Duration) -> Result<Self, ConfigError> {
        Self::builder(name, rate).burst(1).max_wait(max_wait).build()
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The layer that limits a service's calls; it refuses the rest.
    pub fn layer(&self) -> RateLimitLayer {
        RateLimitLayer::new(self)
    }

    /// Takes a token.
    ///
    /// One read-modify-write and one clock read; a rejection writes nothing.
    ///
    /// # Errors
    ///
    /// [`Rejection::RateLimited`], with the time after which the call would pass if nobody else comes.
    #[inline]
    pub fn check(&self) -> Result<(), Rejection> {
        self.check_n(1)
    }

    /// Takes `cost` tokens, or none.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check); without a time when the cost exceeds the burst and so never can pass.
    #[inline]
    pub fn check_n(&self, cost: u32) -> Result<(), Rejection> {
        self.0.check(cost)?;
        self.admitted().complete(NOT_KNOWN);
        Ok(())
    }

    /// Takes `cost` tokens, or none, that can be given back.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n).
    pub fn try_acquire(&self, cost: u32) -> Result<Token<'_>, Rejection> {
        let slot = self.0.reserve(cost)?;
        Ok(Token { slot, call: self.admitted() })
    }

    /// Whether a call with this cost would pass now. Takes nothing, tells no observer.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n).
    pub fn peek(&self, cost: u32) -> Result<(), Rejection> {
        use crate::state::gcra::GcraRejection;

        let limit = self.0.gcra.params().burst();
        self.0.gcra.peek(self.0.now(), cost).map_err(|rejection| {
            let retry_after = match rejection {
                GcraRejection::Wait(wait) => Some(wait),
                GcraRejection::Never => None,
            };
            Rejection::rate_limited(self.name().clone(), retry_after, limit)
        })
    }

    /// Takes `cost` tokens; waits until they are due, for up to `max_wait`.
    ///
    /// The tokens are reserved before the wait, so nobody overtakes; a later caller may get the place of one who gave up.
    /// Cancel-safe: a wait that is dropped gives them back.
    ///
    /// # Errors
    ///
    /// As [`check_n`](Self::check_n), at once when the wait would be longer than `max_wait`.
    ///
    /// # Panics
    ///
    /// When it has to wait outside of a tokio runtime with time enabled.
    pub async fn acquire(&self, cost: u32) -> Result<(), Rejection> {
        self.admit(cost).await.map(|call| call.complete(NOT_KNOWN))
    }

    #[inline(always)]
    fn admitted(&self) -> CancelOnDrop<&RateLimiterInner, SpentTokens> {
        CancelOnDrop::new(&*self.0, SpentTokens::admitted(&self.0.events))
    }

    async fn admit(&self, cost: u32) -> Result<CancelOnDrop<&RateLimiterInner, SpentTokens>, Rejection> {
        let inner = &*self.0;
        match inner.gcra.reserve(inner.now(), cost, inner.max_wait) {
            Ok((Duration::ZERO, _)) => Ok(self.admitted()),
            Ok((wait, slot)) => Ok(CancelOnDrop::new(inner, WaitForTokens::new(inner, slot, wait).await?)),
            Err(rejection) => Err(inner.reject(rejection)),
        }
    }

    /// Runs `future` when it has a token, which it waits for as [`acquire`](Self::acquire) does.
    ///
    /// # Errors
    ///
    /// The future's own, or [`Rejection::RateLimited`].
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let call = self.admit(1).await?;
        let result = future.await;
        call.complete(result.as_ref());
        result
    }

    /// Changes rate and burst while calls are made. What was used of the burst stays used, as a number of tokens; calls
    /// that wait already keep their time.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] as [`RateLimiterBuilder::build`]; nothing is changed then.
    pub fn set_rate(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let params = params(rate, burst)?;
        // One change at a time; no call takes this lock.
        let mut present = self.0.rate.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.gcra.set(params, self.0.now());
        *present = rate;
        Ok(())
    }

    /// How it stands.
    pub fn snapshot(&self) -> RateLimiterSnapshot {
        let now = self.0.now();
        // CancelOnDrop to the end, so that no change of the rate comes in between.
        let rate = self.0.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let (available, full_after) = self.0.gcra.available(now);
        RateLimiterSnapshot {
            rate: *rate,
            burst: self.0.gcra.params().burst(),
            available,
            full_after,
            max_wait: self.0.max_wait,
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// How a [`RateLimiter`] stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimiterSnapshot {
    /// The rate.
    pub rate: Rate,
    /// UnusedTokens that may be used at one instant.
    pub burst: u32,
    /// UnusedTokens there now.
    pub available: u32,
    /// Time until all tokens are there, if nobody takes any.
    pub full_after: Duration,
    /// How long a call may wait.
    pub max_wait: Duration,
}

/// UnusedTokens of a [`RateLimiter`], taken. Dropping it keeps them spent; [`refund`](Self::refund) gives them back.
pub struct Token<'a> {
    slot: Slot,
    call: CancelOnDrop<&'a RateLimiterInner, SpentTokens>,
}

impl Token<'_> {
    /// The call was never made: gives the tokens back.
    ///
    /// Exact while nobody has taken tokens since, or the bucket was not full before. Otherwise a token that has started to
    /// be replaced is not given back, since the bucket could then hold more than its due; the limiter is stricter for a
    /// period at most.
    pub fn refund(mut self) {
        self.call.consume(|inner, tokens| {
            inner.gcra.cancel(self.slot);
            tokens.cancel(inner);
        });
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.call.consume(|inner, tokens| tokens.complete(inner, NOT_KNOWN));
        }
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// What follows a check is not known to the limiter.
const NOT_KNOWN: Result<&(), &()> = Ok(&());
