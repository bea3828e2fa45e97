//! One handle per destination.

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

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
    per_key::{Evict, PerKey, PerKeyBuilder},
    rate_limit::{Rate, RateLimiter},
};

const IDLE: Duration = Duration::from_secs(60);

fn breakers() -> PerKeyBuilder<String, CircuitBreaker> {
    PerKey::builder("up", |name| CircuitBreaker::consecutive(name, 2)).idle_after(IDLE)
}

fn key(text: &str) -> String {
    text.to_owned()
}

/// The key is the first word of the request, if there are two.
fn first_word(request: &&'static str) -> Option<String> {
    request.split_once(' ').map(|(first, _)| first.to_owned())
}

#[tokio::test(start_paused = true)]
async fn one_sick_host_does_not_open_the_circuit_of_another() {
    let breakers = breakers().build().unwrap();
    let client = ServiceBuilder::new().layer(breakers.layer(first_word, CircuitBreaker::layer)).service(service_fn(
        |request: &'static str| async move {
            if request.starts_with("sick") { Err::<(), BoxError>("down".into()) } else { Ok(()) }
        },
    ));
    for _ in 0..2 {
        client.clone().oneshot("sick 1").await.unwrap_err();
    }
    let refused = client.clone().oneshot("sick 1").await.unwrap_err();
    assert_eq!(refused.as_rejection().unwrap().name(), "up.sick");
    assert!(client.clone().oneshot("well 1").await.is_ok());
    assert!(client.oneshot("nameless").await.is_ok());
    assert_eq!(breakers.get(&key("well")).unwrap().state(), CircuitState::Closed);
    assert_eq!(breakers.get(&key("nameless")).map(|_| ()), None, "it went through the shared one");
    let mut names: Vec<_> = breakers.entries().into_iter().map(|(_, breaker)| breaker.name().to_string()).collect();
    names.sort();
    assert_eq!(names, ["up.sick", "up.well"]);
}

#[tokio::test(start_paused = true)]
async fn each_tells_its_own_name_in_events() {
    let (recorder, names) = (Recorder::new(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let (told, seen) = (recorder.clone(), names.clone());
    let bulkheads = PerKey::<String, _>::builder("up", move |name| {
        let seen = seen.clone();
        let by_name = move |event: &Event<'_>| seen.lock().unwrap().push(event.name.to_string());
        Bulkhead::builder(name).max_concurrent(1).observer((told.clone(), by_name)).build()
    });
    let bulkheads = bulkheads.build().unwrap();
    let (script, probe) = Script::new();
    script.reply(Reply::Later);
    let service = bulkheads.layer(first_word, Bulkhead::layer).layer(probe);
    let mut held = tokio_test::task::spawn(service.clone().oneshot("a 1"));
    assert!(held.poll().is_pending());
    assert!(service.clone().oneshot("a 2").await.unwrap_err().as_rejection().is_some());
    service.oneshot("b 1").await.unwrap();
    assert_eq!(recorder.take(), ["admitted", "rejected bulkhead_full", "admitted", "completed success"]);
    assert_eq!(*names.lock().unwrap(), ["up.a", "up.a", "up.b", "up.b"]);
}

#[test]
fn idle_ones_are_forgotten_and_their_places_are_free() {
    let clock = ManualClock::new();
    let breakers = breakers().max_keys(2).clock(clock.clone()).build().unwrap();
    breakers.get_or_create(&key("a"));
    clock.advance(IDLE / 2);
    breakers.get_or_create(&key("b"));
    assert_eq!(breakers.get_or_create(&key("c")).name(), "up.overflow", "there is no place");
    clock.advance(IDLE / 2);
    assert_eq!(breakers.get_or_create(&key("c")).name(), "up.c", "a's is free");
    assert!(breakers.get(&key("a")).is_none() && breakers.get(&key("b")).is_some());
    // One that is in use is not idle.
    for _ in 0..8 {
        clock.advance(IDLE / 4);
        breakers.get_or_create(&key("b"));
    }
    breakers.get_or_create(&key("d"));
    assert!(breakers.get(&key("b")).is_some() && breakers.get(&key("c")).is_none());
    assert_eq!(breakers.len(), 2);
}

#[test]
fn what_would_be_lost_is_kept_however_many_keys_come() {
    let clock = ManualClock::new();
    let (own, of_breakers, of_limiters) = (clock.clone(), clock.clone(), clock.clone());
    let handles = PerKey::<String, _>::builder("up", move |name| {
        let breaker = CircuitBreaker::builder(name.clone()).clock(of_breakers.clone()).build()?;
        let limiter = RateLimiter::builder(name.clone(), Rate::per_hour(1)).clock(of_limiters.clone()).build()?;
        Ok((breaker, Bulkhead::new(name, 1)?, limiter))
    });
    let handles = handles.max_keys(6).idle_after(IDLE).clock(own).build().unwrap();
    let [open, forced, busy, limited, plain] = ["open", "forced", "busy", "limited", "plain"].map(key);
    handles.get_or_create(&open).0.open_for(IDLE * 10);
    handles.get_or_create(&forced).0.force_open();
    let busy_one = handles.get_or_create(&busy).1;
    let permit = busy_one.try_acquire().unwrap();
    handles.get_or_create(&limited).2.check().unwrap();
    handles.get_or_create(&plain);
    for flood in 0..1000 {
        clock.advance(IDLE / 100);
        handles.get_or_create(&format!("flood-{flood}"));
        assert!(handles.len() <= 6);
    }
    // The open time is over, and the sweeps are due.
    assert!([&forced, &busy, &limited].iter().all(|key| handles.get(key).is_some()));
    assert!(handles.get(&plain).is_none());
    drop(permit);
    clock.advance(Duration::from_secs(3600));
    handles.get_or_create(&key("one more"));
    assert!([&busy, &limited, &open].iter().all(|key| handles.get(key).is_none()));
    assert!(handles.get(&forced).is_some(), "what was set by hand stays");
}

#[test]
fn an_open_circuit_survives_a_flood() {
    let clock = ManualClock::new();
    let of_breakers = clock.clone();
    let breakers = PerKey::<String, _>::builder("up", move |name| {
        CircuitBreaker::builder(name).clock(of_breakers.clone()).build()
    });
    let breakers = breakers.max_keys(3).idle_after(IDLE).clock(clock.clone()).build().unwrap();
    breakers.get_or_create(&key("sick")).open_for(IDLE * 20);
    for flood in 0..1000 {
        clock.advance(IDLE / 100);
        breakers.get_or_create(&format!("flood-{flood}"));
        assert_eq!(breakers.get(&key("sick")).unwrap().state(), CircuitState::Open);
    }
    assert!(!breakers.get(&key("sick")).unwrap().is_evictable());
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
    assert_eq!(script.calls(), 3, "a call that is not polled is not made");
    script.set_ready(Ready::Err("gone"));
    assert_eq!(service.ready().await.unwrap_err().to_string(), "gone");
}

// G26
#[test]
fn threads_that_bring_keys_at_once_share_one_handle_each_within_the_bound() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let bulkheads = PerKey::<String, _>::builder("up", |name| {
        MADE.fetch_add(1, SeqCst);
        Bulkhead::new(name, 100_000)
    });
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
    assert_eq!(counted, 4000, "no call went through a handle that was lost");
    assert_eq!((bulkheads.len(), bulkheads.entries().len()), (50, 50));
}

#[test]
fn what_cannot_work_is_an_error_at_once() {
    let field = |built: Result<PerKey<String, CircuitBreaker>, ConfigError>| built.unwrap_err().field();
    assert_eq!(field(breakers().max_keys(0).build()), "max_keys");
    assert_eq!(field(breakers().idle_after(Duration::ZERO).build()), "idle_after");
    let wrong = PerKey::builder("up", |name| CircuitBreaker::builder(name).probes(0).build());
    assert_eq!(field(wrong.build()), "probes");
}

// G26
#[test]
fn the_bound_holds_when_many_new_keys_come_at_once() {
    for round in 0..200 {
        let bulkheads = PerKey::<String, _>::builder("up", |name| {
            // Lets others come in between.
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
async fn a_call_that_ends_or_is_dropped_gives_back_what_it_held() {
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
    let mut kept = tokio_test::task::spawn(service.ready().await.unwrap().call("a 3"));
    assert!(matches!(kept.poll(), std::task::Poll::Ready(Ok("ok"))));
    assert_eq!(in_flight(), 0, "though the future is kept");
}
