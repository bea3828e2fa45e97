//! Every pattern is in all the places where a pattern must be. `docs/architecture.md` lists them.

use std::{fmt, fs, path::Path};

use super::Pattern;

/// The files of a pattern's folder.
const FILES: [&str; 7] = ["mod", "builder", "handle", "layer", "service", "future", "inner"];

/// Files that a pattern does without, each with the reason.
const WITHOUT: [(Pattern, &str); 1] = [
    // The layer is the handle.
    (Pattern::Fallback, "handle"),
];

/// The pattern's folder and public module.
fn module(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::CircuitBreaker => "circuit_breaker",
        Pattern::Retry => "retry",
        Pattern::Timeout => "timeout",
        Pattern::Bulkhead => "bulkhead",
        Pattern::RateLimiter => "rate_limit",
        Pattern::Fallback => "fallback",
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Fails if `text` has no line that begins with `start` for some pattern.
#[track_caller]
fn each_has_a_line<S: fmt::Display>(place: &str, text: &str, start: impl Fn(&'static str) -> S) {
    for pattern in Pattern::ALL {
        let start = start(module(*pattern)).to_string();
        assert!(text.lines().any(|line| line.trim_start().starts_with(&start)), "{place} has no `{start}`");
    }
}

#[test]
fn all_has_every_variant_in_order() {
    let source = include_str!("../pattern.rs");
    let (_, rest) = source.split_once("pub enum Pattern {\n").unwrap();
    let declared = rest.split_once("\n}\n").unwrap().0.lines().filter(|line| !line.contains("///"));
    let declared: Vec<_> = declared.map(|line| line.trim().trim_end_matches(',').to_owned()).collect();
    let all: Vec<_> = Pattern::ALL.iter().map(|pattern| format!("{pattern:?}")).collect();
    assert_eq!(all, declared);
}

#[test]
fn each_folder_has_the_same_files() {
    let mut unexpected = Vec::new();
    for pattern in Pattern::ALL {
        for file in FILES {
            let path = Path::new("src").join(module(*pattern)).join(file).with_extension("rs");
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).is_file();
            if exists == WITHOUT.contains(&(*pattern, file)) {
                unexpected.push(format!("{} {}", path.display(), if exists { "exists" } else { "is missing" }));
            }
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[test]
fn each_is_a_public_module() {
    each_has_a_line("src/lib.rs", include_str!("../lib.rs"), |module| format!("pub mod {module};"));
}

#[test]
fn each_is_in_the_table_of_the_readme() {
    each_has_a_line("README.md", &read("README.md"), |module| format!("| `{module}` |"));
}

#[test]
fn each_layer_is_in_the_table_of_the_contract_tests() {
    let main = read("tests/contract/main.rs");
    let (_, layers) = main.split_once("\nlayers! {\n").unwrap();
    let (layers, _) = layers.split_once("\n}\n").unwrap();
    each_has_a_line("layers! of tests/contract/main.rs", layers, |module| format!("{module}, "));
}

/// Runs each pattern's label through an adapter.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn observe_each(observer: &dyn crate::Observer) {
    for pattern in Pattern::ALL {
        let name = &"x".into();
        observer.on_event(&crate::Event { pattern: *pattern, name, kind: crate::EventKind::Admitted });
    }
}

#[cfg(feature = "metrics")]
#[test]
fn each_is_a_label_of_the_metrics() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || observe_each(&crate::event::MetricsObserver::new()));
    let rendered = recorder.handle().render();
    for pattern in Pattern::ALL {
        let sample = format!("rampart_in_flight{{pattern=\"{pattern}\",name=\"x\"}} 1");
        assert!(rendered.lines().any(|line| line == sample), "no `{sample}` in\n{rendered}");
    }
}

#[cfg(feature = "tracing")]
#[test]
fn each_is_a_field_of_the_traces() {
    let (log, writer) = std::io::pipe().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(std::sync::Arc::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, || observe_each(&crate::event::TracingObserver::new()));
    let log = std::io::read_to_string(log).unwrap();
    for pattern in Pattern::ALL {
        let field = format!("pattern=\"{pattern}\"");
        assert!(log.contains(&field), "no `{field}` in\n{log}");
    }
}
