//! Models of the rate limiter.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{
    gcra::{Gcra, Params},
    time::Nanos,
};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Nanos = Nanos::new(1 << 50);

fn at(later: Duration) -> Nanos {
    NOW.saturating_add(later)
}

/// One token a second.
fn limiter(burst: u32) -> Arc<Gcra> {
    Arc::new(Gcra::new(params(1, burst)))
}

fn params(seconds: u64, burst: u32) -> Params {
    Params::new(1, Duration::from_secs(seconds), burst).unwrap()
}

/// Tokens that are there now, by taking them.
fn drain(limiter: &Gcra, now: Nanos) -> u32 {
    (0..10).take_while(|_| limiter.check(now, 1).is_ok()).count() as u32
}

model! {
    /// G1, P11: of the last token there is one.
    the_last_token_is_admitted_once, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(1);
        let other = Arc::clone(&limiter);
        let there = thread::spawn(move || other.check(NOW, 1).is_ok());
        let here = limiter.check(NOW, 1).is_ok();
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1);
        assert_eq!(drain(&limiter, NOW), 0);
        assert_eq!(drain(&limiter, at(SECOND)), 1);
    }
}

model! {
    /// G1 with clocks that differ: `burst + (b - a) / period` at most.
    never_more_than_burst_and_rate, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(2);
        let take = |limiter: &Gcra, now| u32::from(limiter.check(now, 1).is_ok()) + u32::from(limiter.check(now, 1).is_ok());
        let other = Arc::clone(&limiter);
        let there = thread::spawn(move || take(&other, at(SECOND)));
        let here = take(&limiter, NOW);
        let admitted = here + there.join().unwrap();
        assert!((2..=3).contains(&admitted), "{admitted}");
        assert!(admitted + drain(&limiter, at(SECOND)) <= 3);
    }
}

model! {
    /// G4, P12: slots of those who wait are a period apart, whoever gives one back meanwhile.
    a_slot_has_one_owner, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(1);
        let wait = |limiter: &Gcra| limiter.reserve(NOW, 1, SECOND * 10).unwrap();
        let (_, now) = wait(&limiter);
        let (_, next) = wait(&limiter);
        let (_, last) = wait(&limiter);
        let (cancelling, reserving) = (Arc::clone(&limiter), Arc::clone(&limiter));
        // Not the last one, so it goes to a cell.
        let cancelled = thread::spawn(move || cancelling.cancel(next));
        let there = thread::spawn(move || wait(&reserving));
        let here = wait(&limiter);
        cancelled.join().unwrap();
        let there = there.join().unwrap();
        let live = [now, last, here.1, there.1];
        for (at, slot) in live.iter().enumerate() {
            assert!(live.iter().skip(at + 1).all(|other| other != slot), "{live:?}");
        }
    }
}

model! {
    /// G4: a returned reservation is not lost, whether it is the last when it comes back or not.
    a_returned_reservation_is_there_again, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(2);
        let (_, first) = limiter.reserve(NOW, 1, Duration::ZERO).unwrap();
        let other = Arc::clone(&limiter);
        let there = thread::spawn(move || other.reserve(NOW, 1, Duration::ZERO).is_ok());
        limiter.cancel(first);
        assert!(there.join().unwrap());
        // The slot may have been returned while a later one was out: then its debt has not begun to be paid off yet.
        assert_eq!(drain(&limiter, NOW), 1);
    }
}

model! {
    /// P13: a change of the rate comes before a call or after it. What is used stays used, as a number of tokens.
    a_change_of_the_rate_is_one_step, preemptions: None, refuted by [SplitSwap, Relaxed], {
        let limiter = limiter(2);
        assert!(limiter.check(NOW, 1).is_ok());
        let (changing, checking) = (Arc::clone(&limiter), Arc::clone(&limiter));
        let changed = thread::spawn(move || changing.set(params(10, 3), NOW));
        let there = thread::spawn(move || checking.check(NOW, 1).is_ok());
        let here = limiter.check(NOW, 1).is_ok();
        changed.join().unwrap();
        let there = there.join().unwrap();
        assert!(here || there);
        // By the new rule there are three in all, and each is ten seconds' worth.
        let all = 1 + u32::from(here) + u32::from(there) + drain(&limiter, NOW);
        assert_eq!(all, 3);
        assert_eq!(limiter.available(NOW), (0, Duration::from_secs(30)));
    }
}
