//! Models of the permit counter. Those of the queue around it are beside it.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::permits::Permits;

model! {
    /// B1, B2, P14: the last permit goes to one caller.
    the_last_permit_goes_to_one, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let other = Arc::clone(&permits);
        let there = thread::spawn(move || other.try_acquire());
        let here = permits.try_acquire();
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert_eq!(permits.counts(), (1, 0));
    }
}

model! {
    /// B1: the count is that of the permits, through acquiring, releasing and resizing.
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
        assert!(released.join().unwrap(), "nobody waits");
        let held = u32::from(here) + u32::from(resized.join().unwrap());
        assert_eq!(permits.counts(), (held, 0));
        // One more may be out than the lowered limit allows, if it was taken before; none is taken now.
        assert!(held <= 2 && (held == 0 || !permits.try_acquire()));
    }
}
