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
    assert_eq!(count(|| budget.deposit_reported()), (false, LOAD));
    assert_eq!(count(|| budget.withdraw_reported(now)), (Withdrawal::Granted, SWAP));
    assert_eq!(count(|| budget.withdraw(now)), (false, LOAD), "a denied withdrawal");
    assert_eq!(reads.get(), 0);
    let begins = Ops { loads: 3, stores: 0, rmws: 2 };
    assert_eq!(count(|| budget.withdraw_reported(now)), (Withdrawal::Exhausted, begins), "the first one");
    assert_eq!(reads.replace(0), 1);
    assert_eq!(count(|| budget.withdraw_reported(now)), (Withdrawal::Denied, LOAD), "the next one");
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

// contract G34
#[test]
fn one_caller_learns_of_each_exhaustion_and_each_recovery() {
    for _ in 0..100 {
        let budget = Budget::new(2 * TOKEN, TOKEN / 2, 0, Nanos::new(0));
        let counted = |call: &(dyn Fn() -> bool + Sync)| -> usize {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || (0..10).filter(|_| call()).count())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            })
        };
        for second in [0, 10, 20, 29, 30] {
            let now = move || Nanos::new(second * 1_000_000_000);
            let exhausted = usize::from(second != 29);
            assert_eq!(counted(&|| budget.withdraw_reported(now) == Withdrawal::Exhausted), exhausted, "at {second} s");
            assert_eq!(counted(&|| budget.deposit_reported()), exhausted, "at {second} s");
        }
    }
    // What unreported calls do is reported by the next one that reports.
    let budget = Budget::new(TOKEN, TOKEN, 0, Nanos::new(0));
    let withdraw = || budget.withdraw_reported(|| Nanos::new(0));
    assert!(budget.withdraw(|| Nanos::new(0)) && !budget.withdraw(|| Nanos::new(0)));
    assert_eq!(withdraw(), Withdrawal::Exhausted);
    budget.refund();
    assert_eq!([budget.deposit_reported(), budget.deposit_reported()], [true, false]);
    // Time fills this one.
    let budget = Budget::new(2 * TOKEN, 0, TOKEN, Nanos::new(0));
    let withdraw = |seconds: u64| budget.withdraw_reported(|| Nanos::new(seconds << 30));
    use Withdrawal::{Denied, Exhausted, Granted, GrantedAfterRecovery};
    assert_eq!([0, 0, 0, 0, 1, 1].map(withdraw), [Granted, Granted, Exhausted, Denied, Granted, Denied]);
    assert_eq!([20, 20, 20, 20].map(withdraw), [GrantedAfterRecovery, Granted, Exhausted, Denied]);
}

proptest! {
    #[test]
    fn budget_matches_a_plain_number(
        capacity in 1_u32..20,
        deposit in 0_u32..2500,
        refill in 0_u32..5000,
        ops in prop::collection::vec((0_u8..4, 0_u64..5_000_000_000), 0..200),
    ) {
        let mut now = Nanos::new(1 << 50);
        let budget = Budget::new(capacity * TOKEN, deposit, refill, now);
        // In billionths of a thousandth, so that the model is exact.
        const UNIT: u128 = 1_000_000_000;
        let cap = u128::from(capacity * TOKEN) * UNIT;
        let (mut tokens, mut writes) = (cap, 0);
        let tick = 1 << budget.tick_bits();
        for (op, nanos) in ops {
            match op {
                0 => {
                    now = now.saturating_add(Duration::from_nanos(nanos));
                    tokens = (tokens + u128::from(nanos) * u128::from(refill)).min(cap);
                }
                1 => { budget.deposit(); tokens = (tokens + u128::from(deposit) * UNIT).min(cap); }
                2 => { budget.refund(); tokens = (tokens + 1000 * UNIT).min(cap); }
                _ => {
                    // The budget may be late, by two ticks since it was full and a tick for each
                    // withdrawal since.
                    let late = u128::from(refill) * (2 + writes) * tick + UNIT;
                    let granted = budget.withdraw(|| now);
                    if granted {
                        prop_assert!(tokens >= 1000 * UNIT, "a token came early");
                        tokens -= 1000 * UNIT;
                        writes += 1;
                    } else {
                        prop_assert!(tokens < 1000 * UNIT + late, "a token came late");
                    }
                }
            }
        }
    }

    /// budget.I2 at any time, with clocks that jump.
    #[test]
    fn a_jumping_clock_grants_no_more_than_its_latest_time_allows(
        capacity in 1_u32..=1_000_000,
        refill in 1_u32..=1_000_000,
        times in prop::collection::vec(any::<u64>(), 1..40),
    ) {
        let budget = Budget::new(capacity * TOKEN, 0, refill, Nanos::new(0));
        let (mut latest, mut granted) = (0, 0_u128);
        for time in times {
            latest = latest.max(time);
            granted += (0..100).filter(|_| budget.withdraw(|| Nanos::new(time))).count() as u128;
            let allowed = u128::from(capacity) + u128::from(latest) * u128::from(refill) / 1_000_000_000_000;
            prop_assert!(granted <= allowed);
            prop_assert!(budget.balance(|| Nanos::new(time)) <= capacity * TOKEN);
        }
    }
}

#[test]
fn a_token_comes_on_time() {
    let start = Nanos::new(1 << 50);
    let budget = Budget::new(2 * TOKEN, 0, TOKEN, start);
    while budget.withdraw(|| start) {}
    for second in 1..100 {
        let due = start.saturating_add(Duration::from_secs(second));
        assert!(!budget.withdraw(|| Nanos::new(due.get() - 1)));
        let soon = due.saturating_add(Duration::from_nanos(32 * (1 + second)));
        assert!(budget.withdraw(|| soon), "{second}");
    }
}
