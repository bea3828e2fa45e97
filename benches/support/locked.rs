//! The obvious implementations: the same structures in a mutex.
#![allow(unreachable_pub)] // shared by benches, as modules

use std::{sync::Mutex, time::Instant};

/// The last N outcomes; trips at a failure rate of 50%.
pub struct Window(Mutex<Ring>);

struct Ring {
    failed: Vec<bool>,
    next: usize,
    failures: usize,
}

impl Window {
    pub fn new(size: usize) -> Self {
        Self(Mutex::new(Ring { failed: vec![false; size], next: 0, failures: 0 }))
    }

    /// Records an outcome, and returns whether the circuit stays closed.
    pub fn record(&self, failed: bool) -> bool {
        let mut ring = self.0.lock().unwrap();
        let next = ring.next;
        let oldest = std::mem::replace(&mut ring.failed[next], failed);
        ring.failures = ring.failures + usize::from(failed) - usize::from(oldest);
        ring.next = (next + 1) % ring.failed.len();
        ring.failures * 2 < ring.failed.len()
    }
}

/// A token bucket.
pub struct Bucket {
    rate: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    pub fn new(rate: f64) -> Self {
        Self { rate, state: Mutex::new((rate, now())) }
    }

    pub fn take(&self) -> bool {
        let now = now();
        let mut state = self.state.lock().unwrap();
        let (tokens, since) = *state;
        let tokens = (tokens + now.saturating_duration_since(since).as_secs_f64() * self.rate).min(self.rate);
        let taken = tokens >= 1.0;
        *state = (if taken { tokens - 1.0 } else { tokens }, now);
        taken
    }
}

#[allow(clippy::disallowed_methods)] // this is not the library's clock
fn now() -> Instant {
    Instant::now()
}

/// A count of permits.
pub struct Permits {
    limit: u32,
    in_flight: Mutex<u32>,
}

impl Permits {
    pub fn new(limit: u32) -> Self {
        Self { limit, in_flight: Mutex::new(0) }
    }

    pub fn acquire(&self) -> bool {
        let mut in_flight = self.in_flight.lock().unwrap();
        let free = *in_flight < self.limit;
        *in_flight += u32::from(free);
        free
    }

    pub fn release(&self) {
        *self.in_flight.lock().unwrap() -= 1;
    }
}
