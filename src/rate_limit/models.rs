//! The interleavings of a limiter's word, its queue and returned tokens, explored by loom.

use std::{
    task::{Wake, Waker},
    time::Duration,
};

use loom::{sync::Arc, thread};

use super::{
    Rate,
    queue::{Joined, Tokens, Turn},
};
use crate::{
    clock::Nanos,
    state::{gcra::Params, models::model},
};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Nanos = Nanos::new(1 << 50);

struct Woken(loom::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, loom::sync::atomic::Ordering::Release);
    }
}

/// A limiter of one token per second.
fn limiter(burst: u32) -> Arc<Tokens> {
    Arc::new(Tokens::new(Rate::per_second(1), params(1, burst)))
}

fn params(seconds: u64, burst: u32) -> Params {
    Params::new(1, Duration::from_secs(seconds), burst).unwrap()
}

/// The number of tokens available now, by taking them.
fn drain(tokens: &Tokens, now: Nanos) -> u32 {
    (0..10).take_while(|_| tokens.check(now, 1).is_ok()).count() as u32
}

model! {
    /// gcra.I4: a token returned out of order goes to one caller, with or without the lock.
    a_returned_token_is_taken_once, preemptions: None, refuted by [SplitSwap], {
        let tokens = limiter(3);
        let first = tokens.take(NOW, 1).unwrap();
        tokens.check(NOW, 1).unwrap();
        let returning = Arc::clone(&tokens);
        let returned = thread::spawn(move || returning.cancel(first));
        let taken = u32::from(tokens.check(NOW, 1).is_ok()) + u32::from(tokens.check(NOW, 1).is_ok());
        returned.join().unwrap();
        assert_eq!(taken + drain(&tokens, NOW), 2);
        assert_eq!(drain(&tokens, NOW.saturating_add(SECOND)), 1, "the word is free again");
    }
}

model! {
    /// gcra.I5: a call joins the queue while others take tokens: none is taken twice, and no call
    /// outside overtakes the one in the queue.
    a_queue_forms_while_tokens_are_taken, preemptions: None, refuted by [SplitSwap], {
        let tokens = limiter(1);
        let taking = Arc::clone(&tokens);
        let there = thread::spawn(move || taking.check(NOW, 1).is_ok());
        match tokens.join(NOW, 1, SECOND) {
            Ok(Joined::Admitted(_)) => assert!(!there.join().unwrap()),
            Ok(Joined::Waits(ticket)) => {
                assert!(there.join().unwrap());
                let later = NOW.saturating_add(SECOND);
                assert!(tokens.check(later, 1).is_err());
                assert!(matches!(tokens.poll(&ticket, later, Waker::noop()), Turn::Taken { .. }));
            }
            Err(rejection) => panic!("{rejection:?}"),
        }
        assert_eq!(drain(&tokens, NOW.saturating_add(2 * SECOND)), 1);
    }
}

model! {
    /// A token that is returned while a call looks for it is seen or wakes the call.
    no_wakeup_is_lost, preemptions: None, refuted by [SplitSwap], {
        let tokens = limiter(1);
        let slot = tokens.take(NOW, 1).unwrap();
        let returning = Arc::clone(&tokens);
        let returned = thread::spawn(move || returning.cancel(slot));
        let woken = std::sync::Arc::new(Woken(loom::sync::atomic::AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let taken = match tokens.join(NOW, 1, SECOND).unwrap() {
            Joined::Admitted(_) => true,
            Joined::Waits(ticket) => {
                let mut turn = tokens.poll(&ticket, NOW, &waker);
                returned.join().unwrap();
                if matches!(turn, Turn::Wait(_)) {
                    assert!(woken.0.load(loom::sync::atomic::Ordering::Acquire), "a wakeup is lost");
                    turn = tokens.poll(&ticket, NOW, &waker);
                }
                assert_eq!(drain(&tokens, NOW), 0);
                matches!(turn, Turn::Taken { .. })
            }
        };
        assert!(taken);
    }
}

model! {
    /// gcra.I5: the only call of the queue leaves while others take tokens: the word decides again,
    /// and no token is taken twice.
    a_queue_ends_while_tokens_are_taken, preemptions: None, refuted by [SplitSwap], {
        let tokens = limiter(1);
        tokens.check(NOW, 1).unwrap();
        let Ok(Joined::Waits(ticket)) = tokens.join(NOW, 1, SECOND) else { panic!("admitted") };
        let later = NOW.saturating_add(SECOND);
        let (leaving, taking) = (Arc::clone(&tokens), Arc::clone(&tokens));
        let left = thread::spawn(move || leaving.leave(&ticket));
        let there = thread::spawn(move || taking.check(later, 1).is_ok());
        let here = tokens.check(later, 1).is_ok();
        left.join().unwrap();
        let taken = u32::from(here) + u32::from(there.join().unwrap());
        assert_eq!(taken + drain(&tokens, later), 1);
        assert_eq!(drain(&tokens, later.saturating_add(SECOND)), 1);
    }
}

model! {
    /// A change of the rate happens before a call or after it, and keeps the number of tokens
    /// taken.
    a_change_of_the_rate_is_atomic, preemptions: None, refuted by [SplitSwap, Relaxed], {
        let tokens = limiter(2);
        tokens.check(NOW, 1).unwrap();
        let changing = Arc::clone(&tokens);
        let changed = thread::spawn(move || changing.set(Rate::new(1, 10 * SECOND), params(10, 3), NOW));
        let here = tokens.check(NOW, 1).is_ok();
        changed.join().unwrap();
        assert!(here);
        // With the new rate there are three tokens in all, of ten seconds each.
        let all = 1 + u32::from(here) + drain(&tokens, NOW);
        assert_eq!(all, 3);
        let (_, _, available, full_after) = tokens.snapshot(NOW);
        assert_eq!((available, full_after), (0, Duration::from_secs(30)));
    }
}
