//! Models of the retry budget.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{
    budget::{Budget, TOKEN},
    time::Nanos,
};

const NOW: Nanos = Nanos::new(0);

model! {
    /// R1, R2, P15: the last token is granted once.
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
    /// R1: no payment is lost, and none goes above the capacity.
    payments_add_up, preemptions: None, refuted by [SplitSwap], {
        let budget = Arc::new(Budget::new(3 * TOKEN, TOKEN, 0, NOW));
        assert!(budget.withdraw(|| NOW) && budget.withdraw(|| NOW));
        let other = Arc::clone(&budget);
        // One token is left, and one of the three comes back twice too often.
        let there = thread::spawn(move || {
            other.deposit();
            other.withdraw(|| NOW)
        });
        budget.refund();
        budget.deposit();
        assert!(there.join().unwrap());
        let balance = budget.balance(|| NOW);
        // 1 + 3 paid - 1 withdrawn, or one less where the bucket was full when the last was paid.
        assert!(balance == 3 * TOKEN || balance == 2 * TOKEN, "{balance}");
        assert!(balance <= budget.capacity());
    }
}

model! {
    /// R1, R2: with room for all, payments and withdrawals by two threads are exact.
    nothing_is_lost_while_there_is_room, preemptions: None, refuted by [SplitSwap], {
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
