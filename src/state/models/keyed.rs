//! Models of the keyed table, of two ways.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{keyed::Keyed, time::Nanos};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Nanos = Nanos::new(1 << 50);

fn at(later: Duration) -> Nanos {
    NOW.saturating_add(later)
}

/// Keys of the first set.
fn hash(key: u64) -> u64 {
    key
}

fn passes(table: &Keyed, key: u64, now: Nanos) -> bool {
    table.check(hash(key), now, 1, false).result.is_ok()
}

model! {
    /// K6: two who bring a new key at once make one limiter.
    a_key_has_one_place, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, true));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 7, NOW));
        let here = passes(&table, 7, NOW);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert!(!passes(&table, 7, NOW));
    }
}

model! {
    /// K6, when their clocks differ, and the places are idle for the one and active for the other.
    a_key_has_one_place_by_whichever_clock, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, false));
        assert!(passes(&table, 1, NOW) && passes(&table, 2, at(Duration::from_millis(100))));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 7, at(SECOND)));
        let here = passes(&table, 7, at(SECOND * 2));
        let admitted = u32::from(here) + u32::from(there.join().unwrap());
        assert!((1..=2).contains(&admitted));
        let later = (0..3).take_while(|_| passes(&table, 7, at(SECOND * 2))).count() as u32;
        assert!(admitted + later <= 2, "one, and one more a second later");
    }
}

model! {
    /// K2, P17: who comes for a place does not take that of a key which is being used.
    an_active_key_is_not_evicted, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, true));
        // One place of the two is idle in a second from now, the other in two.
        assert!(passes(&table, 1, NOW) && passes(&table, 2, at(SECOND)));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 3, at(SECOND)));
        let here = passes(&table, 1, at(SECOND));
        let there = there.join().unwrap();
        // Either the first key was there before, and the new one shares the overflow, or the other way round.
        assert!(here && there);
        assert!((1..=3).all(|key| !passes(&table, key, at(SECOND))), "all are limited");
    }
}
