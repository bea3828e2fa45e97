//! Hostile names, in every text that they reach: messages, logs, metrics, headers.
#![cfg(all(feature = "tracing", feature = "metrics", feature = "http", feature = "tower"))]

mod support;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use support::BoxError;
use tower_rampart::{
    AsRejection, Error, Name, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    event::{Event, EventKind, MetricsObserver, Observer, TracingObserver},
    fallback::Fallback,
    http::Responses,
    per_key::PerKey,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};
use tracing::{Metadata, Subscriber, field::Visit, span};

/// A name that tries to forge a line, to color and to reverse text, and to fill the disk.
fn hostile() -> String {
    "x\n2026-01-01T00:00:00Z WARN admin: logged in\r\u{1b}[31m\u{202e}\u{2028}\0`\" ".to_owned() + &"y".repeat(100_000)
}

/// Whether the text is one line of printable characters, in which the name is cut.
fn is_harmless(text: &str) -> bool {
    let forges = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    text.len() < 4000 && !text.contains(forges)
}

/// A subscriber that writes strings as they are, as a plain formatter may.
#[derive(Clone, Default)]
struct PlainLog(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0 += &format!(" {field}={value}");
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl Subscriber for PlainLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target() == "tower_rampart" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn messages_show_hostile_names_escaped_and_cut() {
    let name = || Name::from(hostile());
    let rejections = [
        Rejection::circuit_open(name(), Some(Duration::ZERO)),
        Rejection::circuit_open(name(), None),
        Rejection::circuit_recovering(name(), 10),
        Rejection::bulkhead_full(name(), 1),
        Rejection::queue_timeout(name(), Duration::ZERO),
        Rejection::rate_limited(name(), Some(Duration::ZERO), 1),
        Rejection::rate_limited(name(), None, 1),
        Rejection::timed_out(name(), Duration::ZERO, true),
        Rejection::timed_out(name(), Duration::ZERO, false),
    ];
    let mut texts = Vec::new();
    for rejection in rejections {
        assert_eq!(rejection.name().as_str(), hostile(), "the name itself is unchanged");
        texts.extend([rejection.to_string(), format!("{rejection:?}"), format!("{rejection:#?}").replace('\n', "")]);
        texts.push(std::io::Error::from(rejection.clone()).to_string());
        texts.push(format!("{:?}", Error::<std::io::Error>::from(rejection.clone())));
        let boxed: BoxError = rejection.into();
        texts.push(boxed.as_rejection().unwrap().to_string());
    }
    let (breaker, bulkhead) = (CircuitBreaker::new(name()), Bulkhead::new(name(), 1).unwrap());
    let limiter = RateLimiter::new(name(), Rate::per_second(1)).unwrap();
    let keyed = KeyedRateLimiter::<str>::builder(name(), Rate::per_second(1));
    let (retry, timeout) = (Retry::attempts(name(), 2).unwrap(), Timeout::new(name(), Duration::MAX));
    let per_key = PerKey::<String, _>::builder(name(), |name| Ok(CircuitBreaker::new(name)));
    let (client, server) = (stack::client(name()), stack::server(name()));
    texts.extend([
        format!("{breaker:?}"),
        format!("{:?}", breaker.layer()),
        format!("{bulkhead:?}"),
        format!("{limiter:?}"),
        format!("{keyed:?}"),
        format!("{:?}", keyed.build().unwrap()),
        format!("{retry:?}"),
        format!("{timeout:?}"),
        format!("{per_key:?}"),
        format!("{:?}", per_key.build().unwrap()),
        format!("{:?}", Fallback::value(name(), ())),
        format!("{client:?}{server:?}"),
    ]);
    let (client, server) = (client.build().unwrap(), server.build().unwrap());
    texts.extend([client.to_string(), format!("{client:?}"), server.to_string(), format!("{server:?}")]);
    for text in texts {
        assert!(is_harmless(&text), "{text:?}");
    }
}

#[test]
fn logs_show_hostile_names_escaped_and_cut() {
    struct Each<O>(O);
    impl<O: Observer> Observer for Each<O> {
        fn on_event(&self, event: &Event<'_>) {
            self.0.on_event(event);
            let exhausted = EventKind::RetriesExhausted { attempts: 1 };
            let kinds = [EventKind::Evicted, exhausted, EventKind::WaitCompleted { waited: Duration::ZERO }];
            for kind in kinds {
                let mut event = *event;
                event.kind = kind;
                self.0.on_event(&event);
            }
        }
    }
    let log = PlainLog::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let breakers = PerKey::<String, _>::builder("up", |name| {
        let builder = CircuitBreaker::builder(name).no_time_window().no_failure_rate().consecutive_failures(1);
        builder.observer(Each(TracingObserver::new())).build()
    });
    let breaker = breakers.build().unwrap().get_or_create(&hostile());
    assert!(breaker.name().as_str().len() <= 256, "a key's name is bounded in memory");
    breaker.try_acquire().unwrap().success();
    drop(breaker.try_acquire().unwrap());
    breaker.try_acquire().unwrap().failure();
    breaker.try_acquire().unwrap_err();
    let lines = log.0.lock().unwrap();
    assert!(lines.len() > 20);
    for line in &*lines {
        assert!(is_harmless(line) && line.len() < 1000, "{line:?}");
        assert!(line.contains(r"up.x\n2026"), "{line}");
    }
}

#[test]
fn headers_hold_a_bounded_part_of_a_hostile_name() {
    let rejection = Rejection::rate_limited(hostile(), Some(Duration::from_secs(3)), 10);
    let response = Responses::plain().response::<String>(&rejection);
    for field in ["ratelimit", "ratelimit-policy"] {
        let value = response.headers()[field].to_str().unwrap();
        assert!(value.len() < 100, "{value}");
        assert!(value.starts_with("\"x_2026-01-01T00:00:00Z WARN admin: logged in"), "{value}");
        assert_eq!(value.matches('"').count(), 2, "{value}");
    }
    assert!(!response.body().contains("WARN"));
}

/// The values of the label `name`.
fn names(text: &str) -> HashSet<&str> {
    text.lines().filter_map(|line| Some(line.split_once("name=\"")?.1.split_once('"')?.0)).collect()
}

// The observer is made where the handle is, as one would write it first.
#[test]
fn metrics_of_ten_thousand_keys_have_a_bounded_number_of_series() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let text = recorder.handle();
    let clock = tower_rampart::clock::ManualClock::new();
    let bulkheads = PerKey::<String, _>::builder("up", |name| {
        Bulkhead::builder(name).max_concurrent(1).observer(MetricsObserver::new()).build()
    });
    let bulkheads = bulkheads.max_keys(100).idle_after(Duration::from_secs(1)).clock(clock.clone()).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        for key in 0..10_000 {
            clock.advance(Duration::from_millis(20));
            drop(bulkheads.get_or_create(&format!("key-{key}")).try_acquire().unwrap());
        }
        // The program's own names are always shown.
        let fixed = Bulkhead::builder("fixed").max_concurrent(1).observer(MetricsObserver::new()).build().unwrap();
        drop(fixed.try_acquire().unwrap());
    });
    let text = text.render();
    let names = names(&text);
    assert_eq!(names.len(), 202, "200 names, `fixed` and `other`");
    assert!(["up.key-0", "fixed", "other"].iter().all(|name| names.contains(name)));
    assert!(text.contains("rampart_calls_total{pattern=\"bulkhead\",name=\"other\",outcome=\"success\"} 9800"));
    assert!(text.lines().filter(|line| line.starts_with("rampart_in_flight")).all(|line| line.ends_with(" 0")));
}

#[test]
fn an_observer_can_have_a_limit_of_its_own_and_labels_are_escaped() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let text = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let observer = MetricsObserver::new().max_names(2);
        for name in [hostile(), "b".to_owned(), "c".to_owned(), "b".to_owned()] {
            let limiter = RateLimiter::builder(name, Rate::per_second(1)).observer(observer.clone()).build().unwrap();
            limiter.check().unwrap();
        }
    });
    let text = text.render();
    assert!(text.lines().all(|line| line.len() < 1000 && is_harmless(line)), "{text:?}");
    let names = names(&text);
    assert!(names.len() == 3 && names.contains("b") && names.contains("other"), "{names:?}");
    assert!(text.contains("rampart_calls_total{pattern=\"rate_limiter\",name=\"other\",outcome=\"success\"} 1"));
}
