//! The retry budget: a token bucket that successes fill and retries drain.

use std::time::Duration;

use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::{Nanos, nanos_of},
};

/// A token in thousandths: a retry costs a whole token, a success deposits an exact share of one.
pub(crate) const TOKEN: u32 = 1000;

/// The times of the refill clock that fit, in nanoseconds: 4.5 years.
const HORIZON_BITS: u32 = 57;

/// A token bucket in one word: the retry budget of gRPC and the AWS SDKs, with an optional refill
/// over time.
///
/// ```text
/// word: [tick of the last refill | exhausted: 1 | thousandths of tokens]
/// ```
///
/// The tokens have as many bits as the capacity needs, and the tick has the rest: it is 32 ns for a
/// capacity of 2, 17 us for 1000, and 17 ms for a million.
///
/// An exhaustion begins with a denied withdrawal and ends when the bucket is full again. One caller
/// learns of each, so that reports of it do not multiply with the calls. A budget that hovers
/// around empty begins at most one exhaustion in ten seconds. Callers that do not report leave the
/// bit as it is.
///
/// Invariants:
/// - budget.I1 `0 <= tokens <= capacity`, always.
/// - budget.I2 retries granted <= capacity + ratio * successes + refill * time. A refilled token
///   comes up to two ticks late, never early.
/// - budget.I3 idle time costs nothing: the next withdrawal adds the refill for all of it.
/// - budget.I4 exhaustions and recoveries alternate, and each is returned to one caller, whose swap
///   set or cleared the bit.
///
/// Cost: a deposit is 1 load when the bucket is full, otherwise 1 load and 1 RMW, and reads no
/// clock; a withdrawal is 1 load and 1 RMW, a denied one 1 load. Only withdrawals read the clock,
/// and only if the budget refills over time, or if they are denied outside of an exhaustion. The
/// one that begins an exhaustion adds 2 RMWs.
///
/// The tick saturates after 4.5 years, and a clock that goes backwards adds nothing until it is
/// where it was.
#[derive(Debug)]
pub(crate) struct Budget {
    word: Padded<AtomicU64>,
    /// When the last exhaustion began, plus one; zero if there was none.
    exhausted_at: AtomicU64,
    capacity: u32,
    deposit: u32,
    refill_per_second: u32,
    token_bits: u32,
    /// The bits below the tick, in the word.
    low_mask: u64,
}

/// The least time between the beginnings of two exhaustions.
const MIN_EXHAUSTION_INTERVAL: Duration = Duration::from_secs(10);

/// The result of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    Granted,
    /// Granted from a bucket that had refilled over time, which ended an exhaustion.
    GrantedAfterRecovery,
    /// Denied. This caller's denial began an exhaustion.
    Exhausted,
    Denied,
}

impl Withdrawal {
    pub(crate) fn is_granted(self) -> bool {
        matches!(self, Self::Granted | Self::GrantedAfterRecovery)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct BudgetWord {
    tick: u64,
    exhausted: bool,
    tokens: u32,
}

impl Budget {
    /// A full bucket. All amounts are in thousandths of a token.
    pub(crate) fn new(capacity: u32, deposit: u32, refill_per_second: u32, now: Nanos) -> Self {
        let token_bits = u32::BITS - capacity.leading_zeros();
        let (word, exhausted_at) = (Padded(AtomicU64::new(0)), AtomicU64::new(0));
        let low_mask = (1 << (token_bits + 1)) - 1;
        let mut budget = Self { word, exhausted_at, capacity, deposit, refill_per_second, token_bits, low_mask };
        let word = BudgetWord { tick: budget.tick_after(now), exhausted: false, tokens: capacity };
        budget.word = Padded(AtomicU64::new(budget.pack(word)));
        budget
    }

    fn unpack(&self, word: u64) -> BudgetWord {
        let tokens = (word & (self.low_mask >> 1)) as u32;
        BudgetWord { tick: word >> self.low_bits(), exhausted: word >> self.token_bits & 1 != 0, tokens }
    }

    fn pack(&self, word: BudgetWord) -> u64 {
        word.tick << self.low_bits() | u64::from(word.exhausted) << self.token_bits | u64::from(word.tokens)
    }

    /// The bits below the tick.
    fn low_bits(&self) -> u32 {
        self.token_bits + 1
    }

    /// The length of a tick, as a power of two.
    fn tick_bits(&self) -> u32 {
        (HORIZON_BITS + self.low_bits()).saturating_sub(u64::BITS)
    }

    fn max_tick(&self) -> u64 {
        u64::MAX >> self.low_bits()
    }

    fn tick(&self, now: Nanos) -> u64 {
        (now.get() >> self.tick_bits()).min(self.max_tick())
    }

    /// The tick in which `now` lies, rounded up.
    fn tick_after(&self, now: Nanos) -> u64 {
        let whole = self.tick(now);
        let is_exact = whole << self.tick_bits() >= now.get();
        if is_exact { whole } else { (whole + 1).min(self.max_tick()) }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn deposit_per_success(&self) -> u32 {
        self.deposit
    }

    pub(crate) fn refill_per_second(&self) -> u32 {
        self.refill_per_second
    }

    /// Deposits the share of a success.
    #[inline]
    pub(crate) fn deposit(&self) {
        self.add(self.deposit, false);
    }

    /// As [`deposit`](Self::deposit). Returns whether this ends an exhaustion.
    #[inline]
    pub(crate) fn deposit_reported(&self) -> bool {
        self.add(self.deposit, true)
    }

    /// Returns the token of a retry that was not sent.
    pub(crate) fn refund(&self) {
        self.add(TOKEN, false);
    }

    #[inline]
    fn add(&self, amount: u32, reported: bool) -> bool {
        drive(&self.word, |word| {
            // Full, and not exhausted.
            if word & self.low_mask == u64::from(self.capacity) {
                return Step::Keep(false);
            }
            let word = self.unpack(word);
            let tokens = word.tokens.saturating_add(amount).min(self.capacity);
            let next = self.recovered(BudgetWord { tokens, ..word }, reported);
            if next == word {
                Step::Keep(false)
            } else {
                Step::Write(self.pack(next), next.exhausted != word.exhausted)
            }
        })
    }

    /// Ends the exhaustion of a bucket that is full, if that is reported.
    #[inline]
    fn recovered(&self, word: BudgetWord, reported: bool) -> BudgetWord {
        BudgetWord { exhausted: word.exhausted && !(reported && word.tokens == self.capacity), ..word }
    }

    /// Withdraws a token for a retry, if there is one.
    pub(crate) fn withdraw(&self, now: impl FnOnce() -> Nanos) -> bool {
        self.take((self.refill_per_second > 0).then(now), false).is_granted()
    }

    /// As [`withdraw`](Self::withdraw). Returns whether this begins or ends an exhaustion.
    pub(crate) fn withdraw_reported(&self, now: impl Fn() -> Nanos) -> Withdrawal {
        let refilled_at = (self.refill_per_second > 0).then(&now);
        match self.take(refilled_at, true) {
            Withdrawal::Exhausted if !self.begin_exhaustion(refilled_at.unwrap_or_else(now)) => Withdrawal::Denied,
            withdrawal => withdrawal,
        }
    }

    /// Takes a token. A denial is `Exhausted` outside of an exhaustion.
    fn take(&self, refilled_at: Option<Nanos>, reported: bool) -> Withdrawal {
        drive(&self.word, |word| {
            let seen = self.unpack(word);
            let word = self.recovered(self.refilled(seen, refilled_at), reported);
            match word.tokens.checked_sub(TOKEN) {
                Some(tokens) => {
                    let recovered = word.exhausted != seen.exhausted;
                    let granted = if recovered { Withdrawal::GrantedAfterRecovery } else { Withdrawal::Granted };
                    Step::Write(self.pack(BudgetWord { tokens, ..word }), granted)
                }
                None if word.exhausted => Step::Keep(Withdrawal::Denied),
                None => Step::Keep(Withdrawal::Exhausted),
            }
        })
    }

    /// Begins an exhaustion. `false` if another caller has, if the last one began only recently, or
    /// if the bucket has tokens again.
    #[cold]
    fn begin_exhaustion(&self, now: Nanos) -> bool {
        // Not zero.
        let now = now.get().saturating_add(1);
        let is_due = drive(&self.exhausted_at, |last| {
            let is_recent = last != 0 && now.abs_diff(last) < nanos_of(MIN_EXHAUSTION_INTERVAL);
            if is_recent { Step::Keep(false) } else { Step::Write(now, true) }
        });
        is_due
            && drive(&self.word, |word| {
                let word = self.unpack(word);
                if word.exhausted || word.tokens >= TOKEN {
                    return Step::Keep(false);
                }
                Step::Write(self.pack(BudgetWord { exhausted: true, ..word }), true)
            })
    }

    /// The balance, in thousandths of a token.
    pub(crate) fn balance(&self, now: impl FnOnce() -> Nanos) -> u32 {
        let now = (self.refill_per_second > 0).then(now);
        self.refilled(self.unpack(self.word.load(Ordering::Acquire)), now).tokens
    }

    fn refilled(&self, word: BudgetWord, now: Option<Nanos>) -> BudgetWord {
        const BILLION: u128 = 1_000_000_000;
        let Some(now) = now else { return word };
        let ticks = self.tick(now).saturating_sub(word.tick);
        let refill = u128::from(self.refill_per_second);
        let elapsed = u128::from(ticks) << self.tick_bits();
        let gained = elapsed * refill / BILLION;
        if u128::from(word.tokens) + gained >= u128::from(self.capacity) {
            let tick = self.tick_after(now).max(word.tick);
            return BudgetWord { tick, tokens: self.capacity, ..word };
        }
        // Only the time of what was gained is over; the rest counts next time.
        let spent = (gained * BILLION).div_ceil(refill).div_ceil(1 << self.tick_bits());
        BudgetWord { tick: word.tick + spent as u64, tokens: word.tokens + gained as u32, ..word }
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests;
