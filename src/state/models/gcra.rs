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

/// A limiter of one token per second.
fn limiter(burst: u32) -> Arc<Gcra> {
    Arc::new(Gcra::new(params(1, burst)))
}

fn params(seconds: u64, burst: u32) -> Params {
    Params::new(1, Duration::from_secs(seconds), burst).unwrap()
}

/// The number of tokens available now, by taking them.
fn drain(limiter: &Gcra, now: Nanos) -> u32 {
    (0..10).take_while(|_| limiter.check(now, 1).is_ok()).count() as u32
}

model! {
    /// gcra.I1: one caller takes the last token.
    the_last_token_is_taken_once, preemptions: None, refuted by [SplitSwap], {
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
    /// gcra.I1 with differing times: at most `burst + (b - a) / period` tokens.
    differing_times_never_exceed_the_burst_and_the_rate, preemptions: None, refuted by [SplitSwap], {
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
    /// gcra.I4: the slots of waiters are a period apart while another one is returned.
    a_slot_has_one_owner, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(1);
        let wait = |limiter: &Gcra| limiter.reserve(NOW, 1, SECOND * 10).unwrap();
        let (_, now) = wait(&limiter);
        let (_, next) = wait(&limiter);
        let (_, last) = wait(&limiter);
        let (cancelling, reserving) = (Arc::clone(&limiter), Arc::clone(&limiter));
        // It is not the last slot, so it goes to a cell.
        let cancelled = thread::spawn(move || cancelling.cancel(next));
        let there = thread::spawn(move || wait(&reserving));
        let here = wait(&limiter);
        cancelled.join().unwrap();
        let there = there.join().unwrap();
        let live = [now, last, here.1, there.1];
        for (index, slot) in live.iter().enumerate() {
            assert!(live.iter().skip(index + 1).all(|other| other != slot), "{live:?}");
        }
    }
}

model! {
    /// gcra.I4: a returned slot is not lost, whether it is the last one then or not.
    a_returned_slot_is_available_again, preemptions: None, refuted by [SplitSwap], {
        let limiter = limiter(2);
        let (_, first) = limiter.reserve(NOW, 1, Duration::ZERO).unwrap();
        let other = Arc::clone(&limiter);
        let there = thread::spawn(move || other.reserve(NOW, 1, Duration::ZERO).is_ok());
        limiter.cancel(first);
        assert!(there.join().unwrap());
        // Even if the slot was returned while a later one was taken, it is still usable: its period
        // has not begun.
        assert_eq!(drain(&limiter, NOW), 1);
    }
}

model! {
    /// A change of the rate happens before a call or after it, and keeps the number of tokens
    /// taken.
    a_change_of_the_rate_is_atomic, preemptions: None, refuted by [SplitSwap, Relaxed], {
        let limiter = limiter(2);
        assert!(limiter.check(NOW, 1).is_ok());
        let (changing, checking) = (Arc::clone(&limiter), Arc::clone(&limiter));
        let changed = thread::spawn(move || changing.set(params(10, 3), NOW));
        let there = thread::spawn(move || checking.check(NOW, 1).is_ok());
        let here = limiter.check(NOW, 1).is_ok();
        changed.join().unwrap();
        let there = there.join().unwrap();
        assert!(here || there);
        // With the new rate there are three tokens in all, of ten seconds each.
        let all = 1 + u32::from(here) + u32::from(there) + drain(&limiter, NOW);
        assert_eq!(all, 3);
        assert_eq!(limiter.available(NOW), (0, Duration::from_secs(30)));
    }
}
