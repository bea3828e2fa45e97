//! The cost of a call, by the number of calls in the time window.

use std::time::{Duration, Instant};

use tower::Layer;
use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
use tower_resilience::circuitbreaker::{CircuitBreakerLayer as Theirs, SlidingWindowType};

use crate::inner::{Immediate, call};

const WINDOW: Duration = Duration::from_secs(600);

/// Returns the nanoseconds per call for each number of calls in a window of ten minutes: this
/// crate's and tower-resilience's.
pub fn window_sizes(quick: bool) -> Vec<(u32, f64, f64)> {
    let sizes: &[u32] = if quick { &[100, 1_000] } else { &[100, 10_000, 100_000] };
    sizes.iter().map(|calls| (*calls, ours(*calls), theirs(*calls))).collect()
}

/// Fills the window with `calls` calls, then times a tenth as many more, at most a hundred.
fn time(calls: u32, mut one: impl FnMut()) -> f64 {
    for _ in 0..calls {
        one();
    }
    let (started, timed) = (Instant::now(), (calls / 10).clamp(10, 100));
    for _ in 0..timed {
        one();
    }
    started.elapsed().as_nanos() as f64 / f64::from(timed)
}

fn ours(calls: u32) -> f64 {
    let breaker = CircuitBreaker::builder("b").time_window(WINDOW).build().expect("the settings are valid");
    let mut service = CircuitBreakerLayer::new(&breaker).layer(Immediate);
    time(calls, || assert!(call(&mut service)))
}

fn theirs(calls: u32) -> f64 {
    let builder = Theirs::builder().sliding_window_type(SlidingWindowType::TimeBased).sliding_window_duration(WINDOW);
    let mut service = builder.minimum_number_of_calls(20).build().expect("the settings are valid").layer(Immediate);
    time(calls, || assert!(call(&mut service)))
}
