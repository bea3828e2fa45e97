//! One handle per destination.

mod support;

use std::time::Duration;

use support::{
    BoxError, on_threads,
    probe::{Ready, Reply, Script},
    recorder::Recorder,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, ConfigError, Event,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::ManualClock,
    per_key::{PerKey, PerKeyBuilder},
    rate_limit::{Rate, RateLimiter},
};

const IDLE: Duration = Duration::from_secs(60);

fn breakers() -> PerKeyBuilder<String, CircuitBreaker> {
    PerKey::builder("up", |name| CircuitBreaker::consecutive(name, 2)).idle_after(IDLE)
}

fn key(text: &str) -> String {
    text.to_owned()
}

/// The first word of a request of two words is its key; a single word has none.
fn first_word(request: &&'static str) -> Option<String> {
    request.split_once(' ').map(|(first, _)| first.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_failing_host_does_not_open_the_circuit_of_another() {
    let breakers = breakers().build().unwrap();
    let client = ServiceBuilder::new().layer(breakers.layer(first_word, CircuitBreaker::layer)).service(service_fn(
        |request: &'static str| async move {
            if request.starts_with("failing") { Err::<(), BoxError>("down".into()) } else { Ok(()) }
        },
    ));
    for _ in 0..2 {
        client.clone().oneshot("failing 1").await.unwrap_err();
    }
    let rejected = client.clone().oneshot("failing 1").await.unwrap_err();
    assert_eq!(rejected.as_rejection().unwrap().name(), "up.failing");
    assert!(client.clone().oneshot("healthy 1").await.is_ok());
    assert!(client.oneshot("keyless").await.is_ok());
    assert_eq!(breakers.get(&key("healthy")).unwrap().state(), CircuitState::Closed);
    assert_eq!(breakers.get(&key("keyless")).map(|_| ()), None, "it used the overflow handle");
    let mut names: Vec<_> = breakers.entries().into_iter().map(|(_, breaker)| breaker.name().to_string()).collect();
    names.sort();
    assert_eq!(names, ["up.failing", "up.healthy"]);
}

#[tokio::test(start_paused = true)]
async fn each_handle_reports_events_under_its_own_name() {
    let (recorder, names) = (Recorder::new(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let (events, seen) = (recorder.clone(), names.clone());
    let bulkheads = PerKey::<String, _>::builder("up", move |name| {
        let seen = seen.clone();
        let by_name = move |event: &Event<'_>| seen.lock().unwrap().push(event.name.to_string());
        Bulkhead::builder(name).max_concurrent(1).observer((events.clone(), by_name)).build()
    });
    let bulkheads = bulkheads.build().unwrap();
    let (script, probe) = Script::new();
    script.reply(Reply::Later);
    let service = bulkheads.layer(first_word, Bulkhead::layer).layer(probe);
    let mut in_flight = tokio_test::task::spawn(service.clone().oneshot("a 1"));
    assert!(in_flight.poll().is_pending());
    assert!(service.clone().oneshot("a 2").await.unwrap_err().as_rejection().is_some());
    service.oneshot("b 1").await.unwrap();
    assert_eq!(recorder.take(), ["admitted", "rejected bulkhead_full", "admitted", "completed success"]);
    assert_eq!(*names.lock().unwrap(), ["up.a", "up.a", "up.b", "up.b"]);
}

#[test]
fn idle_handles_are_evicted_and_make_room_for_new_keys() {
    let clock = ManualClock::new();
    let breakers = breakers().max_keys(2).clock(clock.clone()).build().unwrap();
    breakers.get_or_create(&key("a"));
    clock.advance(IDLE / 2);
    breakers.get_or_create(&key("b"));
    assert_eq!(breakers.get_or_create(&key("c")).name(), "up.overflow", "the map is full");
    clock.advance(IDLE / 2);
    assert_eq!(breakers.get_or_create(&key("c")).name(), "up.c", "a was evicted");
    assert!(breakers.get(&key("a")).is_none() && breakers.get(&key("b")).is_some());
    // A handle in use is not idle.
    for _ in 0..8 {
        clock.advance(IDLE / 4);
        breakers.get_or_create(&key("b"));
    }
    breakers.get_or_create(&key("d"));
    assert!(breakers.get(&key("b")).is_some() && breakers.get(&key("c")).is_none());
    assert_eq!(breakers.len(), 2);
}

#[test]
fn handles_with_state_survive_a_flood_of_keys() {
    let clock = ManualClock::new();
    let (map_clock, breaker_clock, limiter_clock) = (clock.clone(), clock.clone(), clock.clone());
    let handles = PerKey::<String, _>::builder("up", move |name| {
        let breaker = CircuitBreaker::builder(name.clone()).clock(breaker_clock.clone()).build()?;
        let limiter = RateLimiter::builder(name.clone(), Rate::per_hour(1)).clock(limiter_clock.clone()).build()?;
        Ok((breaker, Bulkhead::new(name, 1)?, limiter))
    });
    let handles = handles.max_keys(6).idle_after(IDLE).clock(map_clock).build().unwrap();
    let [open, forced, busy, limited, plain] = ["open", "forced", "busy", "limited", "plain"].map(key);
    handles.get_or_create(&open).0.open_for(IDLE * 10);
    handles.get_or_create(&forced).0.force_open();
    let busy_bulkhead = handles.get_or_create(&busy).1;
    let permit = busy_bulkhead.try_acquire_owned().unwrap();
    handles.get_or_create(&limited).2.check().unwrap();
    handles.get_or_create(&plain);
    for flood in 0..1000 {
        clock.advance(IDLE / 100);
        handles.get_or_create(&format!("flood-{flood}"));
        assert!(handles.len() <= 6);
    }
    // The open time has passed, and sweeps were due.
    assert!([&forced, &busy, &limited].iter().all(|key| handles.get(key).is_some()));
    assert!(handles.get(&plain).is_none());
    drop((permit, busy_bulkhead));
    clock.advance(Duration::from_secs(3600));
    handles.get_or_create(&key("one more"));
    assert!([&busy, &limited].iter().all(|key| handles.get(key).is_none()));
    assert!([&forced, &open].iter().all(|key| handles.get(key).is_some()), "their circuits are not closed");
}

#[test]
fn an_open_circuit_survives_a_flood_of_keys() {
    let clock = ManualClock::new();
    let breaker_clock = clock.clone();
    let breakers = PerKey::<String, _>::builder("up", move |name| {
        CircuitBreaker::builder(name).clock(breaker_clock.clone()).build()
    });
    let breakers = breakers.max_keys(3).idle_after(IDLE).clock(clock.clone()).build().unwrap();
    breakers.get_or_create(&key("failing")).open_for(IDLE * 20);
    for flood in 0..1000 {
        clock.advance(IDLE / 100);
        breakers.get_or_create(&format!("flood-{flood}"));
        assert_eq!(breakers.get(&key("failing")).unwrap().state(), CircuitState::Open);
    }
    assert!(breakers.snapshot().overflowed > 900, "the flood shares a handle while the map is full");
}

// G1, G5, G14
#[tokio::test(start_paused = true)]
async fn the_instance_that_was_polled_ready_makes_the_call() {
    let (script, probe) = Script::new();
    let mut service = breakers().build().unwrap().layer(first_word, CircuitBreaker::layer).layer(probe);
    script.set_ready(Ready::No);
    assert!(tokio_test::task::spawn(service.ready()).poll().is_pending());
    script.set_ready(Ready::Yes);
    for _ in 0..3 {
        assert_eq!(service.ready().await.unwrap().call("a 1").await.unwrap(), "ok");
    }
    assert_eq!((script.calls(), script.live()), (3, 0));
    drop(service.ready().await.unwrap().call("a 1"));
    assert_eq!(script.calls(), 3, "a call that is never polled does not reach the service");
    script.set_ready(Ready::Err("gone"));
    assert_eq!(service.ready().await.unwrap_err().to_string(), "gone");
}

// G26
#[test]
fn concurrent_callers_share_one_handle_per_key_within_the_bound() {
    let bulkheads = PerKey::<String, _>::builder("up", |name| Bulkhead::new(name, 100_000));
    let bulkheads = bulkheads.max_keys(50).build().unwrap();
    on_threads(4, async |_| {
        for round in 0..1000 {
            let handle = bulkheads.get_or_create(&format!("{}", round % 80));
            std::mem::forget(handle.try_acquire().unwrap());
            assert!(bulkheads.len() <= 50);
        }
    });
    let mut counted: u32 = bulkheads.entries().iter().map(|(_, handle)| handle.snapshot().in_flight).sum();
    counted += bulkheads.overflow().snapshot().in_flight;
    assert_eq!(counted, 4000, "no call used a handle outside the map");
    assert_eq!((bulkheads.len(), bulkheads.entries().len()), (50, 50));
}

#[test]
fn invalid_settings_are_rejected_at_build() {
    let field = |built: Result<PerKey<String, CircuitBreaker>, ConfigError>| built.unwrap_err().field();
    assert_eq!(field(breakers().max_keys(0).build()), "max_keys");
    assert_eq!(field(breakers().idle_after(Duration::ZERO).build()), "idle_after");
    let invalid = PerKey::builder("up", |name| CircuitBreaker::builder(name).probes(0).build());
    assert_eq!(field(invalid.build()), "probes");
}

// G26
#[test]
fn the_bound_holds_when_new_keys_arrive_concurrently() {
    for round in 0..200 {
        let bulkheads = PerKey::<String, _>::builder("up", |name| {
            // Gives other threads a chance to interleave.
            std::thread::yield_now();
            Bulkhead::new(name, 100)
        });
        let bulkheads = bulkheads.max_keys(1).build().unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (bulkheads, start) = (&bulkheads, &start);
                scope.spawn(move || {
                    start.wait();
                    bulkheads.get_or_create(&format!("{thread}"));
                });
            }
        });
        assert_eq!((bulkheads.len(), bulkheads.entries().len()), (1, 1), "in round {round}");
    }
}

// G9, G10, G11, G12
#[tokio::test(start_paused = true)]
async fn completing_or_dropping_a_call_releases_its_permit() {
    let bulkheads = PerKey::<String, _>::builder("up", |name| Bulkhead::new(name, 1)).build().unwrap();
    let (script, probe) = Script::new();
    let mut service = bulkheads.layer(first_word, Bulkhead::layer).layer(probe);
    let in_flight = || bulkheads.get_or_create(&key("a")).snapshot().in_flight;
    drop(service.ready().await.unwrap().call("a 1"));
    script.reply(Reply::Later);
    let mut dropped = tokio_test::task::spawn(service.ready().await.unwrap().call("a 2"));
    assert!(dropped.poll().is_pending());
    assert_eq!(in_flight(), 1);
    drop(dropped);
    assert_eq!((in_flight(), script.live()), (0, 0));
    let mut completed = tokio_test::task::spawn(service.ready().await.unwrap().call("a 3"));
    assert!(matches!(completed.poll(), std::task::Poll::Ready(Ok("ok"))));
    assert_eq!(in_flight(), 0, "although the future is still alive");
}
