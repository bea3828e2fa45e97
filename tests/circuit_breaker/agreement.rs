//! Tripping and closing agree on the failure rates that are worth calling a service at.

use std::time::Duration;

use tower_rampart::{
    circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder},
    clock::ManualClock,
    event::CircuitState,
};

/// A service that fails this share of its calls, and is slow on another, at random.
struct Service {
    clock: ManualClock,
    breaker: CircuitBreaker,
    failing: f64,
    slow: f64,
    random: u64,
}

impl Service {
    fn new(failing: f64, slow: f64, settings: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder) -> Self {
        let clock = ManualClock::new();
        let breaker = settings(CircuitBreaker::builder("b").seed(1)).clock(clock.clone()).build().unwrap();
        Self { clock, breaker, failing, slow, random: 0x9E37_79B9_7F4A_7C15 }
    }

    /// Whether an event of this probability happens.
    fn happens(&mut self, probability: f64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// Makes a call every 10 ms, for this long.
    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 10 {
            let (fails, slow) = (self.happens(self.failing), self.happens(self.slow));
            let permit = self.breaker.try_acquire();
            self.clock.advance(Duration::from_millis(if slow { 10 } else { 1 }));
            match permit {
                Ok(permit) if fails => permit.failure(),
                Ok(permit) => permit.success(),
                Err(_) => {}
            }
            self.clock.advance(Duration::from_millis(if slow { 0 } else { 9 }));
        }
    }

    /// The open times until the circuit closes: the most in nineteen of twenty cases, and the mean.
    fn open_times_to_close(&mut self) -> (u32, f64) {
        const ROUNDS: usize = 200;
        let mut rounds: Vec<u32> = (0..ROUNDS)
            .map(|_| {
                self.breaker.open_for(Duration::from_secs(1));
                (1..1000)
                    .find(|_| {
                        self.run(Duration::from_millis(1010));
                        self.breaker.state() == CircuitState::Closed
                    })
                    .unwrap_or(1000)
            })
            .collect();
        rounds.sort_unstable();
        (rounds[ROUNDS * 19 / 20], f64::from(rounds.iter().sum::<u32>()) / ROUNDS as f64)
    }
}

// B39
#[test]
fn a_failure_rate_at_which_the_circuit_stays_closed_closes_it_in_a_few_open_times() {
    type Settings = fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder;
    let fixed: Settings = |breaker| breaker.open_jitter(false);
    let half: Settings = |breaker| breaker.open_jitter(false).failure_rate(0.5);
    let counting: Settings =
        |breaker| breaker.open_jitter(false).no_time_window().count_window(500).min_calls(100).failure_rate(0.6);
    let slow: Settings =
        |breaker| breaker.open_jitter(false).slow_calls(Duration::from_millis(5), 0.6).no_failure_rate();
    let consecutive: Settings =
        |breaker| breaker.open_jitter(false).no_time_window().no_failure_rate().consecutive_failures(20);
    let rows: [(&str, f64, f64, Settings); 9] = [
        ("defaults", 0.0, 0.0, fixed),
        ("defaults", 0.3, 0.0, fixed),
        ("defaults", 0.5, 0.0, fixed),
        ("defaults", 0.7, 0.0, fixed),
        ("defaults", 0.74, 0.0, fixed),
        ("half", 0.4, 0.0, half),
        ("count window", 0.45, 0.0, counting),
        ("slow calls", 0.0, 0.5, slow),
        ("consecutive", 0.4, 0.0, consecutive),
    ];
    for (settings, failing, slow, build) in rows {
        // Healthy at first, so that the windows hold more calls than their minimum.
        let mut service = Service::new(0.0, 0.0, build);
        service.run(Duration::from_secs(10));
        (service.failing, service.slow) = (failing, slow);
        service.run(Duration::from_secs(300));
        assert_eq!(service.breaker.snapshot().generation, 0, "{settings} at {failing}: it stays closed");
        let (nineteen_of_twenty, mean) = service.open_times_to_close();
        assert!(mean <= 5.0 && nineteen_of_twenty <= 14, "{settings} at {failing}: {mean}, {nineteen_of_twenty}");
    }
}

// The other half: a dependency that the circuit opens for gets a probe per open time.
#[test]
fn a_dead_dependency_gets_one_call_per_open_time() {
    let mut service = Service::new(1.0, 0.0, |breaker| breaker.open_jitter(false));
    service.run(Duration::from_secs(10));
    assert_eq!(service.breaker.state(), CircuitState::Open);
    let before = service.breaker.snapshot().generation;
    service.run(Duration::from_secs(100));
    // Two transitions for each probe: half-open, and open again.
    let probes = (service.breaker.snapshot().generation - before) / 2;
    assert!((95..=100).contains(&probes), "{probes}");
}
