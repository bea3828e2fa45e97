//! Models of the permit counter. The models of the queue around it are beside the queue.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::permits::Permits;

model! {
    /// permits.I1, permits.I2: one caller acquires the last permit.
    the_last_permit_is_acquired_once, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let other = Arc::clone(&permits);
        let there = thread::spawn(move || other.try_acquire());
        let here = permits.try_acquire();
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert_eq!(permits.counts(), (1, 0));
    }
}

model! {
    /// permits.I1: the count is the number of permits while they are acquired and released and the
    /// limit changes.
    permits_are_conserved, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(2));
        assert!(permits.try_acquire());
        let (releasing, resizing) = (Arc::clone(&permits), Arc::clone(&permits));
        let released = thread::spawn(move || releasing.release().is_ok());
        let resized = thread::spawn(move || {
            resizing.set_limit(1);
            resizing.try_acquire()
        });
        let here = permits.try_acquire();
        assert!(released.join().unwrap(), "there are no waiters");
        let in_flight = u32::from(here) + u32::from(resized.join().unwrap());
        assert_eq!(permits.counts(), (in_flight, 0));
        // One more permit than the lowered limit may be in flight if it was acquired before; no
        // further one is acquired.
        assert!(in_flight <= 2 && (in_flight == 0 || !permits.try_acquire()));
    }
}
