//! The observer hook: which events it receives, and how a panicking observer affects others.

mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{
    BoxError,
    probe::{Probe, Reply, Script},
    recorder::Recorder,
};
use tower::{Layer, Service, util::BoxCloneService};
use tower_rampart::{
    Event, EventKind, Observer, Pattern, Rejection, Verdict,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    event::Served,
    fallback::{Fallback, FallbackLayer},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::Retry,
    timeout::Timeout,
};

type Boxed = BoxCloneService<&'static str, &'static str, BoxError>;

/// Each pattern around a probe, with its name.
fn each_pattern<O: Observer + Clone>(observer: O) -> Vec<(&'static str, Script, Boxed)> {
    let fallback: FallbackLayer<_> = Fallback::value("x", "instead");
    let keyed = KeyedRateLimiter::<str>::builder("x", Rate::per_second(100)).observer(observer.clone());
    let key = |request: &&'static str| Some(*request);
    vec![
        boxed("breaker", CircuitBreaker::builder("x").observer(observer.clone()).build().unwrap().layer()),
        boxed("retry", Retry::builder("x").observer(observer.clone()).build().unwrap().layer()),
        boxed("timeout", Timeout::builder("x", Duration::from_secs(1)).observer(observer.clone()).build().layer()),
        boxed("bulkhead", Bulkhead::builder("x").observer(observer.clone()).build().unwrap().layer()),
        boxed(
            "limiter",
            RateLimiter::builder("x", Rate::per_second(100)).observer(observer.clone()).build().unwrap().layer(),
        ),
        boxed("keyed limiter", keyed.build().unwrap().layer(key)),
        boxed("fallback", fallback.observer(observer)),
    ]
}

fn boxed<L>(name: &'static str, layer: L) -> (&'static str, Script, Boxed)
where
    L: Layer<Probe>,
    L::Service: Service<&'static str, Response = &'static str, Error = BoxError> + Clone + Send + 'static,
    <L::Service as Service<&'static str>>::Future: Send,
{
    let (script, probe) = Script::new();
    (name, script, BoxCloneService::new(layer.layer(probe)))
}

/// Polls a call once and returns whether that panicked.
fn panics(service: &mut Boxed) -> bool {
    let call = async {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call("a").await
    };
    catch_unwind(AssertUnwindSafe(|| support::poll_once(call))).is_err()
}

fn is(event: &Event<'_>, kind: &str) -> bool {
    format!("{:?}", event.kind).starts_with(kind)
}

// G23
#[test]
fn every_layer_reports_a_successful_call_as_admitted_and_completed() {
    let recorder = Recorder::new();
    for (name, _, mut service) in each_pattern(recorder.clone()) {
        assert!(!panics(&mut service));
        assert_eq!(recorder.take(), ["admitted", "completed success"], "{name}");
    }
}

// G23, G24
#[test]
fn an_observer_beside_a_panicking_one_receives_one_terminal_event_per_call() {
    for kind in ["Admitted", "Completed"] {
        let recorder = Recorder::new();
        let panicking = move |event: &Event<'_>| assert!(!is(event, kind), "deliberate panic");
        for (name, script, mut service) in each_pattern((recorder.clone(), panicking)) {
            assert!(panics(&mut service), "{name}");
            let lines = recorder.take();
            let ends = lines.iter().filter(|line| !line.starts_with("admitted")).count();
            assert_eq!((lines.len(), ends, script.live()), (2, 1, 0), "{name}, {kind}: {lines:?}");
        }
    }
}

// G24
#[test]
fn the_second_observer_of_a_pair_receives_what_the_first_panics_at() {
    for (kind, lines) in [("Admitted", ["admitted", "cancelled"]), ("Completed", ["admitted", "completed success"])] {
        let recorder = Recorder::new();
        let panicking = move |event: &Event<'_>| assert!(!is(event, kind), "deliberate panic");
        for (name, _, mut service) in each_pattern((panicking, recorder.clone())) {
            assert!(panics(&mut service), "{name}");
            assert_eq!(recorder.take(), lines, "{name}");
        }
        // Both panic: the panic of the second is contained while that of the first unwinds.
        for (name, _, mut service) in each_pattern((panicking, panicking)) {
            assert!(panics(&mut service), "{name}");
        }
    }
}

// G24: a second panic during unwinding would abort the process.
#[test]
fn an_observer_that_panics_during_unwinding_does_not_abort_the_process() {
    let panicking = |event: &Event<'_>| assert!(is(event, "Admitted"), "deliberate panic");
    for (name, script, mut service) in each_pattern(panicking) {
        for reply in [Reply::PanicInPoll, Reply::PanicInCall] {
            script.reply(reply);
            assert!(panics(&mut service), "{name}");
            assert_eq!(script.live(), 0);
        }
    }
}

#[test]
fn observers_can_be_shared_combined_and_closures() {
    let (first, second, events) = (Recorder::new(), Recorder::new(), Arc::new(Mutex::new(Vec::new())));
    let third = events.clone();
    let closure = move |event: &Event<'_>| {
        third.lock().unwrap().push((event.pattern, event.name.to_string()));
    };
    let shared: Arc<dyn Observer> = Arc::new(first.clone());
    let breaker = CircuitBreaker::builder("db").observer((shared, (second.clone(), closure))).build().unwrap();
    breaker.try_acquire().unwrap().success();
    assert_eq!(first.take(), ["admitted", "completed success"]);
    assert_eq!(second.take(), ["admitted", "completed success"]);
    assert_eq!(events.lock().unwrap()[..], [(); 2].map(|()| (Pattern::CircuitBreaker, "db".to_owned())));
}

// B37: transitions that follow each other closely may be reported out of order; their generations
// restore it.
#[test]
fn concurrent_transitions_are_reported_once_each_and_ordered_by_generation() {
    let transitions = Arc::new(Mutex::new(Vec::new()));
    let log = transitions.clone();
    let observer = move |event: &Event<'_>| {
        if let EventKind::StateChanged { from, to, generation, .. } = event.kind {
            log.lock().unwrap().push((generation, from, to));
        }
    };
    let breaker = CircuitBreaker::builder("x")
        .consecutive_failures(2)
        .open_duration(Duration::from_millis(1))
        .open_growth(1.0, Duration::from_millis(1))
        .observer(observer)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let breaker = &breaker;
            scope.spawn(move || {
                for call in 0..400_u32 {
                    match breaker.try_acquire() {
                        Ok(permit) if (call / 20 + thread) % 2 == 0 => permit.failure(),
                        Ok(permit) => permit.success(),
                        Err(_) if call % 8 == thread => breaker.half_open(),
                        Err(_) => {}
                    }
                }
            });
        }
    });
    let mut transitions = std::mem::take(&mut *transitions.lock().unwrap());
    transitions.sort_unstable_by_key(|(generation, ..)| *generation);
    assert!(transitions.len() > 2 && transitions[0].1 == CircuitState::Closed, "{transitions:?}");
    for pair in transitions.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].2 == pair[1].1, "{pair:?}");
    }
    assert_eq!(transitions.last().unwrap().2, breaker.state());
}

#[test]
fn labels_are_stable() {
    let patterns = [
        (Pattern::CircuitBreaker, "circuit_breaker"),
        (Pattern::Retry, "retry"),
        (Pattern::Timeout, "timeout"),
        (Pattern::Bulkhead, "bulkhead"),
        (Pattern::RateLimiter, "rate_limiter"),
        (Pattern::Fallback, "fallback"),
    ];
    for (pattern, label) in patterns {
        assert_eq!((pattern.as_str(), format!("{pattern:>16}")), (label, format!("{label:>16}")));
    }
    let served = [Served::Value, Served::Function, Served::Service].map(Served::as_str);
    assert_eq!(served, ["value", "function", "service"]);
    let verdicts = [Verdict::Success, Verdict::Failure, Verdict::Throttled, Verdict::Ignored];
    assert_eq!(verdicts.map(|verdict| verdict.to_string()), ["success", "failure", "throttled", "ignored"]);
    let rejections = [
        Rejection::circuit_open("x", None),
        Rejection::circuit_recovering("x", 10),
        Rejection::bulkhead_full("x", 1),
        Rejection::queue_timeout("x", Duration::ZERO),
        Rejection::rate_limited("x", None, 1),
        Rejection::timed_out("x", Duration::ZERO, true),
    ];
    let reasons = rejections.map(|rejection| (rejection.kind().as_str(), rejection.reason()));
    assert_eq!(
        reasons,
        [
            ("circuit_breaker", "circuit_open"),
            ("circuit_breaker", "circuit_recovering"),
            ("bulkhead", "bulkhead_full"),
            ("bulkhead", "queue_timeout"),
            ("rate_limiter", "rate_limited"),
            ("timeout", "timed_out"),
        ]
    );
}
