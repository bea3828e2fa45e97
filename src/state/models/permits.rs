//! Models of the permit counter. The models of the queue around it are beside the queue.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{LAPSE_AFTER, permits::Permits, time::Nanos};

fn start() -> Nanos {
    Nanos::new(1 << 40)
}

fn later() -> Nanos {
    start().saturating_add(LAPSE_AFTER)
}

model! {
    /// permits.I1, permits.I2: one caller acquires the last permit.
    the_last_permit_is_acquired_once, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let other = Arc::clone(&permits);
        let there = thread::spawn(move || other.try_acquire(start));
        let here = permits.try_acquire(start);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert_eq!(permits.counts().0, 1);
    }
}

model! {
    /// permits.I1: the count is the number of permits while they are acquired and released and the
    /// limit changes.
    permits_are_conserved, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(2));
        assert!(permits.try_acquire(start));
        let (releasing, resizing) = (Arc::clone(&permits), Arc::clone(&permits));
        let released = thread::spawn(move || releasing.release().is_ok());
        let resized = thread::spawn(move || {
            resizing.set_limit(1);
            resizing.try_acquire(start)
        });
        let here = permits.try_acquire(start);
        assert!(released.join().unwrap(), "there are no waiters");
        let in_flight = u32::from(here) + u32::from(resized.join().unwrap());
        assert_eq!(permits.counts().0, in_flight);
        // One more permit than the lowered limit may be in flight if it was acquired before; no
        // further one is acquired.
        assert!(in_flight <= 2 && (in_flight == 0 || !permits.try_acquire(start)));
    }
}

model! {
    /// permits.I5: an owner that returns while its reservation lapses keeps the permit, or loses it
    /// to one caller.
    a_lapsed_permit_has_one_owner, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let reserved = permits.try_reserve(start).unwrap();
        assert!(!permits.try_acquire(start), "it begins to lapse");
        let [first, second] = [(); 2].map(|()| {
            let permits = Arc::clone(&permits);
            thread::spawn(move || permits.try_acquire(later))
        });
        let claimed = permits.claim(reserved);
        let taken = [first, second].map(|thread| thread.join().unwrap());
        assert_eq!(u32::from(claimed) + taken.into_iter().map(u32::from).sum::<u32>(), 1);
        assert_eq!(permits.counts(), (1, 0));
    }
}

model! {
    /// permits.I5: as above, for an owner that releases its reservation.
    a_lapsed_permit_is_released_once, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let reserved = permits.try_reserve(start).unwrap();
        assert!(!permits.try_acquire(start), "it begins to lapse");
        let taking = Arc::clone(&permits);
        let taken = thread::spawn(move || taking.try_acquire(later));
        assert!(permits.release_reservation(reserved).is_ok());
        let taken = taken.join().unwrap();
        assert_eq!(permits.counts(), (u32::from(taken), 0));
        assert_eq!(permits.try_acquire(later), !taken);
    }
}

model! {
    /// permits.I6: an epoch that begins while a permit is reserved does not take it before its
    /// time.
    a_young_reservation_is_kept, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(2));
        let idle = permits.try_reserve(start).unwrap();
        assert!(!permits.take_lapsed(start));
        let taking = Arc::clone(&permits);
        let taken = thread::spawn(move || {
            // The first one has lapsed; then a new epoch begins.
            let taken = taking.take_lapsed(later);
            (taken, taking.take_lapsed(later))
        });
        let young = permits.try_reserve(later).unwrap();
        let claimed = permits.claim(young);
        assert_eq!(taken.join().unwrap(), (true, false));
        assert!(claimed && !permits.claim(idle));
        assert_eq!(permits.counts(), (2, 0));
    }
}

model! {
    /// permits.I1, permits.I5: an owner renews its reservation while callers make it lapse.
    a_renewed_reservation_is_kept_or_lost_once, preemptions: None, refuted by [SplitSwap], {
        let permits = Arc::new(Permits::new(1));
        let reserved = permits.try_reserve(start).unwrap();
        assert!(!permits.try_acquire(start), "it begins to lapse");
        let taking = Arc::clone(&permits);
        let taken = thread::spawn(move || taking.try_acquire(later));
        let renewed = permits.renew(reserved);
        let taken = taken.join().unwrap();
        assert_eq!(renewed.is_some(), !taken);
        assert_eq!(renewed.is_some_and(|renewed| permits.claim(renewed)), !taken);
        assert_eq!(permits.counts(), (1, 0));
    }
}
