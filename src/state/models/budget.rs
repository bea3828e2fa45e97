//! Models of the retry budget.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{
    budget::{Budget, TOKEN, Withdrawal},
    time::Nanos,
};

const NOW: Nanos = Nanos::new(0);

model! {
    /// budget.I1, budget.I2: the last token is granted once.
    the_last_token_is_granted_once, preemptions: None, refuted by [SplitSwap], {
        let budget = Arc::new(Budget::new(TOKEN, 100, 0, NOW));
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || other.withdraw(|| NOW));
        let here = budget.withdraw(|| NOW);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert_eq!(budget.balance(|| NOW), 0);
    }
}

model! {
    /// budget.I1: no deposit is lost, and none exceeds the capacity.
    concurrent_deposits_add_up, preemptions: None, refuted by [SplitSwap], {
        let budget = Arc::new(Budget::new(3 * TOKEN, TOKEN, 0, NOW));
        assert!(budget.withdraw(|| NOW) && budget.withdraw(|| NOW));
        let other = Arc::clone(&budget);
        // One of the three tokens is left, and three are deposited: one more than fit if the
        // withdrawal comes last.
        let there = thread::spawn(move || {
            other.deposit();
            other.withdraw(|| NOW)
        });
        budget.refund();
        budget.deposit();
        assert!(there.join().unwrap());
        let balance = budget.balance(|| NOW);
        // 1 + 3 deposited - 1 withdrawn, or one less if the bucket was full at the last deposit.
        assert!(balance == 3 * TOKEN || balance == 2 * TOKEN, "{balance}");
        assert!(balance <= budget.capacity());
    }
}

model! {
    /// budget.I1, budget.I2: below the capacity, deposits and withdrawals of two threads are exact.
    deposits_below_the_capacity_are_exact, preemptions: None, refuted by [SplitSwap], {
        let budget = Arc::new(Budget::new(10 * TOKEN, TOKEN / 2, 0, NOW));
        for _ in 0..6 {
            assert!(budget.withdraw(|| NOW));
        }
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || {
            other.deposit();
            other.withdraw(|| NOW)
        });
        budget.deposit();
        assert!(budget.withdraw(|| NOW) && there.join().unwrap());
        assert_eq!(budget.balance(|| NOW), 3 * TOKEN);
    }
}

model! {
    /// budget.I4: one caller learns of an exhaustion, and one of the recovery that follows.
    exhaustion_and_recovery_are_reported_once, preemptions: None, refuted by [SplitSwap], {
        let budget = Arc::new(Budget::new(TOKEN, TOKEN, 0, NOW));
        assert!(budget.withdraw(|| NOW));
        let other = Arc::clone(&budget);
        // Each thread's withdrawal is denied, or takes the token that the other deposited.
        let calls = |budget: &Budget| {
            let exhausted = budget.withdraw_reported(|| NOW) == Withdrawal::Exhausted;
            (u32::from(exhausted), u32::from(budget.deposit_reported()))
        };
        let there = thread::spawn(move || calls(&other));
        let (here, there) = (calls(&budget), there.join().unwrap());
        let recovered_last = u32::from(budget.deposit_reported());
        let (exhausted, recovered) = (here.0 + there.0, here.1 + there.1 + recovered_last);
        // None, if the deposits come before a denied withdrawal can begin one.
        assert!(exhausted <= 1 && exhausted == recovered, "{exhausted} {recovered}");
    }
}
