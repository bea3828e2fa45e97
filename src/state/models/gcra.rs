//! Models of the rate limiter's word. Those of its queue are in `rate_limit::models`.

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
    Arc::new(Gcra::new(Params::new(1, SECOND, burst).unwrap()))
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
