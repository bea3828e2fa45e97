//! The state of every kind of handle, in a `PerKey` that is flooded with keys.

mod support;

use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use support::{
    probe::{Reply, Script},
    recorder::Recorder,
};
use tower::{Layer, ServiceExt};
use tower_rampart::{
    AsRejection, ConfigError, Name, Verdict,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::{Clock, ManualClock, Nanos},
    per_key::{Evict, EvictionLoss, PerKey},
    rate_limit::{Rate, RateLimiter},
    retry::{Retry, RetryBudget},
    timeout::Timeout,
};

const IDLE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

type Kept = Option<Box<dyn Any>>;

/// Whether a handle with this state outlives a flood of keys that need its place. `disturb` gives
/// it the state, and returns what must stay alive meanwhile.
fn survives<H: Evict + Send + Sync + 'static>(
    make: impl Fn(Name, ManualClock) -> Result<H, ConfigError> + Send + Sync + 'static,
    disturb: impl FnOnce(&H, &ManualClock) -> Kept,
) -> bool {
    let clock = ManualClock::new();
    clock.advance(IDLE);
    let handle_clock = clock.clone();
    let handles = PerKey::<String, _>::builder("up", move |name| make(name, handle_clock.clone()));
    let handles = handles.max_keys(3).idle_after(IDLE).clock(clock.clone()).build().unwrap();
    let kept = disturb(&handles.get_or_create(&"disturbed".to_owned()), &clock);
    handles.get_or_create(&"untouched".to_owned());
    for flood in 0..300 {
        clock.advance(IDLE / 50);
        handles.get_or_create(&format!("flood-{flood}"));
        assert!(handles.len() <= 3);
    }
    assert!(handles.get(&"untouched".to_owned()).is_none(), "a handle without state makes room");
    drop(kept);
    handles.get(&"disturbed".to_owned()).is_some()
}

fn fail(breaker: &CircuitBreaker, failures: u32) -> Kept {
    (0..failures).for_each(|_| breaker.try_acquire().unwrap().failure());
    None
}

#[test]
fn a_breakers_state_survives_a_flood_of_keys() {
    type Make = fn(Name, ManualClock) -> Result<CircuitBreaker, ConfigError>;
    type Row = (&'static str, bool, Make, fn(&CircuitBreaker, &ManualClock) -> Kept);
    let consecutive: Make = |name, clock| {
        let builder = CircuitBreaker::builder(name).no_time_window().no_failure_rate();
        builder.consecutive_failures(3).open_duration(IDLE).open_jitter(false).clock(clock).build()
    };
    let counting: Make = |name, clock| {
        let builder = CircuitBreaker::builder(name).no_time_window().count_window(20).slow_calls(IDLE, 0.5);
        builder.clock(clock).build()
    };
    let timed: Make = |name, clock| CircuitBreaker::builder(name).time_window(24 * HOUR).clock(clock).build();
    let defaults: Make = |name, clock| CircuitBreaker::builder(name).clock(clock).build();
    let recovering: Make = |name, clock| {
        let builder = CircuitBreaker::builder(name).gradual_recovery(HOUR).probe_successes(1).clock(clock);
        builder.build()
    };
    let trip: fn(&CircuitBreaker, &ManualClock) -> Kept = |breaker, _| fail(breaker, 3);
    let rows: Vec<Row> = vec![
        ("nothing", false, consecutive, |_, _| None),
        ("successes", false, defaults, |breaker, _| {
            breaker.try_acquire().unwrap().success();
            None
        }),
        ("successes in a count window", false, counting, |breaker, _| {
            breaker.try_acquire().unwrap().success();
            None
        }),
        ("closed manually", false, consecutive, |breaker, _| {
            fail(breaker, 2);
            breaker.close();
            None
        }),
        ("failures that a success ended", false, consecutive, |breaker, _| {
            fail(breaker, 2);
            breaker.try_acquire().unwrap().success();
            None
        }),
        ("failures that have left the window", false, defaults, |breaker, _| fail(breaker, 10)),
        ("one failure of three", true, consecutive, |breaker, _| fail(breaker, 1)),
        ("a failure in a count window", true, counting, |breaker, _| fail(breaker, 1)),
        ("a throttled call in a count window", true, counting, |breaker, _| {
            breaker.try_acquire().unwrap().finish(Verdict::Throttled);
            None
        }),
        ("a slow call in a count window", true, counting, |breaker, clock| {
            let permit = breaker.try_acquire().unwrap();
            clock.advance(2 * IDLE);
            permit.success();
            None
        }),
        ("a failure in a long time window", true, timed, |breaker, _| fail(breaker, 1)),
        ("open", true, consecutive, trip),
        ("half-open after the open time", true, consecutive, |breaker, clock| {
            fail(breaker, 3);
            clock.advance(IDLE);
            drop(breaker.try_acquire().unwrap());
            None
        }),
        ("open for a long time", true, consecutive, |breaker, _| {
            breaker.open_for(100 * HOUR);
            None
        }),
        ("opened because the service asked for it", true, consecutive, |breaker, _| {
            breaker.honor_retry_after(HOUR);
            None
        }),
        ("forced open", true, consecutive, |breaker, _| {
            breaker.force_open();
            None
        }),
        ("half-open manually", true, consecutive, |breaker, _| {
            breaker.half_open();
            None
        }),
        ("disabled", true, consecutive, |breaker, _| {
            breaker.disable();
            None
        }),
        ("recovering", true, recovering, |breaker, _| {
            breaker.half_open();
            breaker.try_acquire().unwrap().success();
            None
        }),
        ("referenced elsewhere", true, consecutive, |breaker, _| Some(Box::new(breaker.clone()))),
        ("wrapped by a service", true, consecutive, |breaker, _| Some(Box::new(breaker.layer().layer(())))),
    ];
    let wrong: Vec<_> = rows
        .into_iter()
        .filter_map(|(state, expected, make, disturb)| (survives(make, disturb) != expected).then_some(state))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_state_of_other_handles_survives_a_flood_of_keys() {
    let bulkhead = |name, clock| Bulkhead::builder(name).max_concurrent(2).clock(clock).build();
    assert!(!survives(bulkhead, |_, _| None));
    assert!(!survives(bulkhead, |bulkhead, _| {
        drop(bulkhead.try_acquire().unwrap());
        None
    }));
    assert!(survives(bulkhead, |bulkhead, _| Some(Box::new(bulkhead.try_acquire_owned().unwrap()))));
    assert!(survives(bulkhead, |bulkhead, _| {
        bulkhead.resize(3).unwrap();
        None
    }));
    assert!(!survives(bulkhead, |bulkhead, _| {
        bulkhead.resize(3).unwrap();
        bulkhead.resize(2).unwrap();
        None
    }));

    let limiter = |name, clock| RateLimiter::builder(name, Rate::per_hour(2)).clock(clock).build();
    assert!(!survives(limiter, |_, _| None));
    assert!(survives(limiter, |limiter, clock| {
        limiter.check_n(2).unwrap();
        // Half of the debt is paid off, and the flood takes 6 minutes.
        clock.advance(HOUR / 2);
        None
    }));
    assert!(survives(limiter, |limiter, _| {
        limiter.set_rate(Rate::per_hour(3), 3).unwrap();
        None
    }));
    assert!(survives(limiter, |limiter, _| {
        limiter.set_rate(Rate::per_hour(2), 3).unwrap();
        None
    }));

    let timeout = |name, _| Ok(Timeout::new(name, IDLE));
    assert!(!survives(timeout, |_, _| None));
    assert!(survives(timeout, |timeout, _| {
        timeout.set_limit(HOUR);
        None
    }));

    let retry = |name, _| Retry::attempts(name, 2);
    let withdraw = |retry: &Retry| assert!(retry.budget().unwrap().try_withdraw());
    assert!(!survives(retry, |_, _| None));
    assert!(survives(retry, |retry, _| {
        retry.set_max_attempts(1).unwrap();
        None
    }));
    assert!(survives(retry, |retry, _| {
        withdraw(retry);
        None
    }));
    assert!(!survives(retry, |retry, _| {
        withdraw(retry);
        retry.budget().unwrap().give_back();
        None
    }));
    // One budget for two retries of a key.
    let pair = |name: Name, _| {
        let budget = RetryBudget::default();
        let build = |name: &Name| Retry::builder(name.clone()).budget(&budget).build();
        Ok((build(&name)?, build(&name)?))
    };
    assert!(survives(pair, |(retry, _), _| {
        withdraw(retry);
        None
    }));
    // A budget that all keys share is not lost with one of them.
    let budget = RetryBudget::default();
    let shared = move |name, _| Retry::builder(name).budget(&budget).build();
    assert!(!survives(shared, |retry, _| {
        withdraw(retry);
        None
    }));
    // A tuple is kept for the state of any of its handles.
    let both =
        |name: Name, clock| Ok((Timeout::new(name.clone(), IDLE), CircuitBreaker::builder(name).clock(clock).build()?));
    assert!(survives(both, |(_, breaker), _| {
        breaker.force_open();
        None
    }));
}

// The breaker of a host with one call an hour.
#[test]
fn a_failing_call_an_hour_trips_a_breaker_of_three_consecutive_failures() {
    let clock = ManualClock::new();
    let handle_clock = clock.clone();
    let breakers = PerKey::<String, _>::builder("up", move |name| {
        let builder = CircuitBreaker::builder(name).no_time_window().no_failure_rate().consecutive_failures(3);
        builder.clock(handle_clock.clone()).build()
    });
    let breakers = breakers.max_keys(10).clock(clock.clone()).build().unwrap();
    for call in 0..3 {
        breakers.get_or_create(&"failing".to_owned()).try_acquire().unwrap().failure();
        for other in 0..60 {
            clock.advance(HOUR / 60);
            breakers.get_or_create(&format!("other-{call}-{other}"));
        }
    }
    assert_eq!(breakers.get_or_create(&"failing".to_owned()).state(), CircuitState::Open);
}

// A call in flight holds its handle, however long it takes.
#[tokio::test(start_paused = true)]
async fn a_call_in_flight_completes_on_the_handle_of_its_key() {
    let breakers = PerKey::<String, _>::builder("up", |name| CircuitBreaker::consecutive(name, 1));
    let breakers = breakers.max_keys(2).idle_after(IDLE).build().unwrap();
    let key = |request: &&'static str| request.split_once(' ').map(|(first, _)| first.to_owned());
    let (script, probe) = Script::new();
    script.reply(Reply::Later);
    let service = breakers.layer(key, CircuitBreaker::layer).layer(probe);
    let mut in_flight = tokio_test::task::spawn(service.clone().oneshot("slow 1"));
    assert!(in_flight.poll().is_pending());
    for flood in 0..100 {
        tokio::time::advance(IDLE).await;
        breakers.get_or_create(&format!("flood-{flood}"));
    }
    script.answer(Err("down".into()));
    assert!(in_flight.poll().is_ready());
    assert!(service.oneshot("slow 2").await.unwrap_err().as_rejection().is_some(), "the circuit has opened");
}

#[test]
fn a_full_map_forgets_the_history_of_a_handle_that_is_unused_for_long_and_reports_it() {
    let clock = ManualClock::new();
    clock.advance(IDLE);
    let recorder = Recorder::new();
    let (handle_clock, observer) = (clock.clone(), recorder.clone());
    let breakers = PerKey::<String, _>::builder("up", move |name| {
        let builder = CircuitBreaker::builder(name).no_time_window().no_failure_rate().consecutive_failures(2);
        builder.clock(handle_clock.clone()).observer(observer.clone()).build()
    });
    let breakers = breakers.max_keys(3).idle_after(IDLE).forget_after(HOUR).clock(clock.clone()).build().unwrap();
    fail(&breakers.get_or_create(&"open".to_owned()), 2);
    fail(&breakers.get_or_create(&"failed once".to_owned()), 1);
    breakers.get_or_create(&"forced".to_owned()).force_open();
    recorder.take();
    let mut flood = 0;
    let mut new_key = |after: Duration| {
        clock.advance(after);
        flood += 1;
        breakers.get_or_create(&format!("flood-{flood}")).name().to_string()
    };
    assert_eq!(new_key(HOUR - IDLE), "up.overflow");
    assert_eq!(recorder.take(), [""; 0]);
    assert_eq!((breakers.len(), breakers.snapshot().overflowed), (3, 1));
    assert_eq!(new_key(IDLE), "up.flood-2");
    let mut reported = recorder.take();
    reported.sort_unstable();
    assert_eq!(reported, ["Evicted", "Evicted", "state open -> closed: evicted"]);
    assert!(breakers.get(&"forced".to_owned()).is_some(), "a state that was set manually is never forgotten");
    // With room for new keys, nothing is forgotten.
    fail(&breakers.get_or_create(&"open".to_owned()), 2);
    recorder.take();
    (0..100).for_each(|_| drop(new_key(HOUR)));
    assert_eq!(breakers.get(&"open".to_owned()).unwrap().state(), CircuitState::Open);
    assert_eq!(recorder.take(), [""; 0]);
}

/// A clock that uses the map whose handles it drives.
#[derive(Clone, Default)]
struct ReentrantClock(ManualClock, Arc<OnceLock<PerKey<String, CircuitBreaker>>>);

impl Clock for ReentrantClock {
    fn now(&self) -> Nanos {
        if let Some(map) = self.1.get() {
            map.entries();
            map.get(&"a".to_owned());
        }
        self.0.now()
    }
}

#[test]
fn the_map_holds_no_lock_while_it_asks_a_handle_what_would_be_lost() {
    let clock = ReentrantClock::default();
    let handle_clock = clock.clone();
    let breakers = PerKey::<String, _>::builder("up", move |name| {
        CircuitBreaker::builder(name).clock(handle_clock.clone()).build()
    });
    let breakers = breakers.max_keys(2).idle_after(IDLE).clock(clock.0.clone()).build().unwrap();
    assert!(clock.1.set(breakers.clone()).is_ok());
    breakers.get_or_create(&"a".to_owned());
    clock.0.advance(IDLE);
    // The handles that the clock looks at might have been changed there, so this sweep leaves them.
    breakers.get_or_create(&"b".to_owned());
    assert_eq!(breakers.len(), 2);
}

/// A handle that is used while a sweep looks at it, by a caller that read the clock long before. It
/// is also the map's clock.
#[derive(Clone, Default)]
struct UsedLate {
    now: Arc<AtomicU64>,
    map: Arc<OnceLock<PerKey<u32, UsedLate>>>,
}

impl Clock for UsedLate {
    fn now(&self) -> Nanos {
        Nanos::new(self.now.load(Ordering::Relaxed))
    }
}

impl Evict for UsedLate {
    fn eviction_loss(&self, _: &Self) -> EvictionLoss {
        let now = self.now.swap(0, Ordering::Relaxed);
        drop(self.map.get().unwrap().get_or_create(&1));
        self.now.store(now, Ordering::Relaxed);
        EvictionLoss::Nothing
    }

    fn report_eviction(&self) {}
}

#[test]
fn a_handle_that_a_stalled_caller_uses_during_a_sweep_is_not_evicted() {
    let handle = UsedLate::default();
    let made = handle.clone();
    let map = PerKey::<u32, _>::builder("up", move |_| Ok(made.clone()));
    let map = map.idle_after(IDLE).clock(handle.clone()).build().unwrap();
    assert!(handle.map.set(map.clone()).is_ok());
    map.get_or_create(&1);
    handle.now.store(IDLE.as_nanos() as u64, Ordering::Relaxed);
    map.get_or_create(&2);
    assert!(map.get(&1).is_some());
}

#[test]
fn a_handle_that_is_changed_during_a_sweep_is_not_evicted() {
    for round in 0..300 {
        let clock = ManualClock::new();
        let breakers = PerKey::<u32, _>::builder("up", |name| CircuitBreaker::consecutive(name, 5));
        let breakers = breakers.idle_after(IDLE).clock(clock.clone()).build().unwrap();
        (0..50).for_each(|key| drop(breakers.get_or_create(&key)));
        clock.advance(IDLE);
        std::thread::scope(|scope| {
            scope.spawn(|| breakers.get_or_create(&99));
            for key in 0..50 {
                let by_use = key % 2 == 0;
                let handle = if by_use { Some(breakers.get_or_create(&key)) } else { breakers.get(&key) };
                let Some(handle) = handle else { continue };
                handle.disable();
                drop(handle);
                let now = breakers.get(&key).map(|handle| handle.state());
                assert_eq!(now, Some(CircuitState::Disabled), "key {key} in round {round}");
            }
        });
    }
}
