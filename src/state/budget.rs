//! The retry budget: a token bucket that successes fill and retries drain.

use std::time::Duration;

use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::Nanos,
};

/// A token in thousandths: a retry costs a whole token, a success deposits an exact share of one.
pub(crate) const TOKEN: u32 = 1000;

/// A tick of the refill clock is 2^24 ns, about 17 ms.
const REFILL_TICK_BITS: u32 = 24;

/// A token bucket in one word: the retry budget of gRPC and the AWS SDKs, with an optional refill
/// over time.
///
/// ```text
/// word: [tick of the last refill: 32 | thousandths of tokens: 32]
/// ```
///
/// Invariants:
/// - budget.I1 `0 <= tokens <= capacity`, always.
/// - budget.I2 retries granted <= capacity + ratio * successes + refill * time.
/// - budget.I3 idle time costs nothing: the next withdrawal adds the refill for all of it.
///
/// Cost: a deposit is 1 load when the bucket is full, otherwise 1 load and 1 RMW, and reads no
/// clock; a withdrawal is 1 load and 1 RMW, a denied one 1 load. Only withdrawals read the clock,
/// and only if the budget refills over time.
///
/// The tick wraps after 2.3 years, and more than half of that is taken for a clock that went
/// backwards: a budget that is idle for longer than 1.1 years is refilled by less than it might be.
#[derive(Debug)]
pub(crate) struct Budget {
    word: Padded<AtomicU64>,
    capacity: u32,
    deposit: u32,
    refill_per_second: u32,
}

#[derive(Clone, Copy)]
struct BudgetWord {
    tick: u32,
    tokens: u32,
}

impl BudgetWord {
    fn unpack(word: u64) -> Self {
        Self { tick: (word >> 32) as u32, tokens: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.tick) << 32 | u64::from(self.tokens)
    }
}

fn tick(now: Nanos) -> u32 {
    (now.get() >> REFILL_TICK_BITS) as u32
}

impl Budget {
    /// A full bucket. All amounts are in thousandths of a token.
    pub(crate) fn new(capacity: u32, deposit: u32, refill_per_second: u32, now: Nanos) -> Self {
        let word = BudgetWord { tick: tick(now), tokens: capacity };
        Self { word: Padded(AtomicU64::new(word.pack())), capacity, deposit, refill_per_second }
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
        self.add(self.deposit);
    }

    /// Returns the token of a retry that was not sent.
    pub(crate) fn refund(&self) {
        self.add(TOKEN);
    }

    #[inline]
    fn add(&self, amount: u32) {
        drive(&self.word, |word| {
            let word = BudgetWord::unpack(word);
            let tokens = word.tokens.saturating_add(amount).min(self.capacity);
            if tokens == word.tokens {
                return Step::Keep(());
            }
            Step::Write(BudgetWord { tokens, ..word }.pack(), ())
        });
    }

    /// Withdraws a token for a retry, if there is one.
    pub(crate) fn withdraw(&self, now: impl FnOnce() -> Nanos) -> bool {
        let now = (self.refill_per_second > 0).then(now);
        drive(&self.word, |word| {
            let word = self.refilled(BudgetWord::unpack(word), now);
            match word.tokens.checked_sub(TOKEN) {
                Some(tokens) => Step::Write(BudgetWord { tokens, ..word }.pack(), true),
                None => Step::Keep(false),
            }
        })
    }

    /// The balance, in thousandths of a token.
    pub(crate) fn balance(&self, now: impl FnOnce() -> Nanos) -> u32 {
        let now = (self.refill_per_second > 0).then(now);
        self.refilled(BudgetWord::unpack(self.word.load(Ordering::Acquire)), now).tokens
    }

    fn refilled(&self, word: BudgetWord, now: Option<Nanos>) -> BudgetWord {
        let Some(now) = now.map(tick) else { return word };
        let ticks = now.wrapping_sub(word.tick);
        // More than half the range of ticks is a clock that went backwards.
        if ticks == 0 || ticks > u32::MAX / 2 {
            return word;
        }
        let elapsed = Duration::from_nanos(u64::from(ticks) << REFILL_TICK_BITS);
        let gained = elapsed.as_micros().saturating_mul(u128::from(self.refill_per_second)) / 1_000_000;
        let tokens = u128::from(word.tokens).saturating_add(gained).min(u128::from(self.capacity));
        BudgetWord { tick: now, tokens: tokens as u32 }
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::state::atomics::{Ops, count};

    const LOAD: Ops = Ops { loads: 1, stores: 0, rmws: 0 };
    const SWAP: Ops = Ops { loads: 1, stores: 0, rmws: 1 };

    #[test]
    fn the_cost_contract_holds() {
        let reads = Cell::new(0);
        let now = || {
            reads.set(reads.get() + 1);
            Nanos::new(0)
        };
        let budget = Budget::new(TOKEN, 100, 0, Nanos::new(0));
        assert_eq!(count(|| budget.deposit()).1, LOAD, "a deposit into a full bucket");
        assert_eq!(count(|| budget.withdraw(now)), (true, SWAP));
        assert_eq!(count(|| budget.withdraw(now)), (false, LOAD), "a denied withdrawal");
        assert_eq!(count(|| budget.deposit()).1, SWAP);
        assert_eq!(reads.get(), 0);
        let refilled = Budget::new(TOKEN, 100, 1, Nanos::new(0));
        refilled.withdraw(now);
        refilled.deposit();
        assert_eq!(reads.get(), 1, "only a withdrawal reads the clock, once");
    }

    // contract R23
    #[test]
    fn ratios_are_exact() {
        for (deposit, successes_per_retry) in [(100, 10), (300, 10), (600, 10), (900, 10), (2000, 1)] {
            let budget = Budget::new(100 * TOKEN, deposit, 0, Nanos::new(0));
            while budget.withdraw(|| Nanos::new(0)) {}
            for _ in 0..successes_per_retry {
                budget.deposit();
            }
            let granted = std::iter::repeat_with(|| budget.withdraw(|| Nanos::new(0))).take_while(|got| *got).count();
            assert_eq!(granted as u32, deposit * successes_per_retry / TOKEN, "a deposit of {deposit}");
        }
    }

    // contract R26
    #[test]
    fn eight_threads_never_overdraw() {
        let budget = Budget::new(500 * TOKEN, 0, 0, Nanos::new(0));
        let granted: usize = std::thread::scope(|scope| {
            let withdraw = || (0..100).filter(|_| budget.withdraw(|| Nanos::new(0))).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(withdraw)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 500);
    }

    proptest! {
        #[test]
        fn budget_matches_a_plain_number(
            capacity in 1_u32..20,
            deposit in 0_u32..2500,
            refill in 0_u32..5000,
            ops in prop::collection::vec((0_u8..4, 0_u64..5_000), 0..200),
        ) {
            let mut now = Nanos::new(1 << 50);
            let budget = Budget::new(capacity * TOKEN, deposit, refill, now);
            let (mut tokens, mut refilled_at) = (u64::from(capacity * TOKEN), now.get() >> REFILL_TICK_BITS);
            let cap = u64::from(capacity * TOKEN);
            for (op, millis) in ops {
                match op {
                    0 => now = now.saturating_add(Duration::from_millis(millis)),
                    1 => { budget.deposit(); tokens = (tokens + u64::from(deposit)).min(cap); }
                    2 => { budget.refund(); tokens = (tokens + 1000).min(cap); }
                    _ => {
                        let tick = now.get() >> REFILL_TICK_BITS;
                        let micros = ((tick - refilled_at) << REFILL_TICK_BITS) / 1000;
                        let refilled = (tokens + micros * u64::from(refill) / 1_000_000).min(cap);
                        let granted = refilled >= 1000;
                        if granted { tokens = refilled - 1000; refilled_at = tick; }
                        prop_assert_eq!(budget.withdraw(|| now), granted);
                    }
                }
            }
        }
    }
}
