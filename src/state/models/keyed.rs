//! Models of the keyed limiter, with two ways.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{keyed::Keyed, time::Nanos};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Nanos = Nanos::new(1 << 50);

fn at(later: Duration) -> Nanos {
    NOW.saturating_add(later)
}

/// The hash of a key in the first set.
fn hash(key: u64) -> u64 {
    key
}

fn passes(table: &Keyed, key: u64, now: Nanos) -> bool {
    table.check(hash(key), now, 1, false).result.is_ok()
}

model! {
    /// keyed.I6: two callers that insert a new key concurrently make one entry.
    a_key_has_one_entry, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, true));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 7, NOW));
        let here = passes(&table, 7, NOW);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert!(!passes(&table, 7, NOW));
    }
}

model! {
    /// keyed.I6: the same when their times differ, and the entries are idle for one and active for
    /// the other.
    a_key_has_one_entry_with_differing_times, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, false));
        assert!(passes(&table, 1, NOW) && passes(&table, 2, at(Duration::from_millis(100))));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 7, at(SECOND)));
        let here = passes(&table, 7, at(SECOND * 2));
        let admitted = u32::from(here) + u32::from(there.join().unwrap());
        assert!((1..=2).contains(&admitted));
        let later = (0..3).take_while(|_| passes(&table, 7, at(SECOND * 2))).count() as u32;
        assert!(admitted + later <= 2, "one token, and one more a second later");
    }
}

model! {
    /// keyed.I2: a new key does not replace the entry of a key that becomes active concurrently.
    an_active_key_is_not_evicted, preemptions: None, refuted by [SplitSwap], {
        let table = Arc::new(Keyed::new(1, SECOND, 1, 1, true));
        // One of the two entries becomes idle in a second, the other in two.
        assert!(passes(&table, 1, NOW) && passes(&table, 2, at(SECOND)));
        let other = Arc::clone(&table);
        let there = thread::spawn(move || passes(&other, 3, at(SECOND)));
        let here = passes(&table, 1, at(SECOND));
        let there = there.join().unwrap();
        // Either the first key keeps its entry and the new one shares the overflow limiter, or the
        // other way round.
        assert!(here && there);
        assert!((1..=3).all(|key| !passes(&table, key, at(SECOND))), "all three are limited");
    }
}
