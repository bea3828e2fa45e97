//! What a newcomer writes first: the README's clients, and clients without a classifier.

use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AdaptErrorLayer, DefaultClassifier, Error, ServiceBuilderExt,
    circuit_breaker::{CircuitBreaker, CircuitBreakerSnapshot},
    http::{HttpClassifier, HttpRepeat},
    retry::Retry,
    stack,
    timeout::Timeout,
};
use tracing_subscriber::fmt::MakeWriter;

/// A server that answers every request with 500, its address, and the number of requests.
async fn failing_server() -> (String, Arc<AtomicU32>) {
    let requests = Arc::new(AtomicU32::new(0));
    let counted = requests.clone();
    let router = Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(StatusCode::INTERNAL_SERVER_ERROR)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

fn failed(snapshot: CircuitBreakerSnapshot) -> u64 {
    snapshot.time_window.unwrap().failed
}

/// Asserts that the README has the lines of this file between `// README: <name>` and `// end`.
fn assert_in_readme(name: &str) {
    let (_, code) = include_str!("snippets.rs").split_once(&format!("// README: {name}\n")).unwrap();
    let (code, _) = code.split_once("// end").unwrap();
    // The README leaves out indentation and comments.
    let lines = |text: &str| -> String {
        text.lines().map(|line| line.split(" // ").next().unwrap().trim()).filter(|line| !line.is_empty()).collect()
    };
    assert!(lines(include_str!("../../README.md")).contains(&lines(code)), "the README differs from this test");
}

#[tokio::test]
async fn the_readmes_reqwest_client_counts_a_500() {
    let (url, requests) = failing_server().await;
    // README: reqwest
    let breaker = CircuitBreaker::new("inventory");
    let client = ServiceBuilder::new()
        .circuit_breaker(&breaker, HttpClassifier::new())
        .time_limit(&Timeout::new("inventory", Duration::from_millis(500)))
        .adapt_error()
        .service(reqwest::Client::new());
    // end
    assert_in_readme("reqwest");
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
    assert_eq!(client.oneshot(request).await.unwrap().status(), 500);
    assert_eq!((requests.load(Ordering::Relaxed), failed(breaker.snapshot())), (1, 1));
}

#[tokio::test]
async fn the_readmes_hyper_client_counts_a_500_and_sends_a_post_once() {
    let (url, requests) = failing_server().await;
    let build = || -> Result<_, tower_rampart::ConfigError> {
        // README: hyper
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let stack = stack::client("inventory").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build()?;
        // end
        Ok((client, stack))
    };
    assert_in_readme("hyper");
    let (client, stack) = build().unwrap();
    let service = stack.layer(AdaptErrorLayer::new().layer(client));
    let post = http::Request::post(&url).body(Empty::new()).unwrap();
    assert_eq!(service.clone().oneshot(post).await.unwrap().status(), 500);
    assert_eq!((requests.load(Ordering::Relaxed), failed(stack.circuit_breaker().unwrap().snapshot())), (1, 1));
    let get = http::Request::get(&url).body(Empty::new()).unwrap();
    assert_eq!(service.oneshot(get).await.unwrap().status(), 500);
    assert!(requests.load(Ordering::Relaxed) > 2, "a GET is retried");
}

#[tokio::test]
async fn http_retries_sends_a_post_once() {
    let (url, requests) = failing_server().await;
    let retry = Retry::attempts("inventory", 2).unwrap();
    let client = ServiceBuilder::new().http_retries(&retry).service(reqwest::Client::new());
    for (method, sent) in [(reqwest::Method::POST, 1), (reqwest::Method::GET, 3)] {
        let request = reqwest::Request::new(method, url.parse().unwrap());
        assert_eq!(client.clone().oneshot(request).await.unwrap().status(), 500);
        assert_eq!(requests.load(Ordering::Relaxed), sent);
    }
}

/// Every Rust example around a client of HTTP or gRPC.
#[test]
fn every_documented_client_has_a_classifier() {
    fn visit(directory: &std::path::Path, examples: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, examples);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                let fences = text.split("```").skip(1).step_by(2);
                examples.extend(fences.map(|example| (path.display().to_string(), example.to_owned())));
            }
        }
    }

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = Vec::new();
    visit(&root.join("src"), &mut examples);
    visit(&root.join("docs"), &mut examples);
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    examples.extend(readme.split("```").skip(1).step_by(2).map(|example| ("README.md".into(), example.to_owned())));
    let around_client = |example: &str| {
        ["reqwest::Client::new()", "legacy::Client", "Endpoint::", "reqwest::Request::try_clone"]
            .into_iter()
            .any(|client| example.contains(client))
            && ["stack::client", "CircuitBreaker", "Retry"].into_iter().any(|layer| example.contains(layer))
    };
    let clients: Vec<_> = examples.iter().filter(|(_, example)| around_client(example)).collect();
    assert!(clients.len() >= 6, "the examples are recognized: {}", clients.len());
    for (path, example) in clients {
        assert!(example.contains("Classifier") || example.contains("classify"), "{path}:\n{example}");
    }
}

/// Collects what is logged at the level WARN while `future` runs.
async fn warnings<F: Future>(future: F) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    future.await;
    drop(guard);
    let lines = log.0.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

#[tokio::test]
async fn a_layer_with_the_default_classifier_around_http_warns_once() {
    let ok = || async { Ok::<_, tower_rampart::BoxError>(http::Response::new(())) };
    let service = tower::service_fn(move |_: http::Request<()>| ok());
    let request = || http::Request::new(());

    let breaker = CircuitBreaker::new("orders");
    let log = warnings(async {
        for _ in 0..3 {
            breaker.layer().layer(service).oneshot(request()).await.unwrap();
            breaker.run(ok()).await.unwrap();
        }
    });
    let log = log.await;
    assert_eq!(log.matches("counts every HTTP response as a success").count(), 1, "{log}");
    assert!(log.contains("circuit_breaker") && log.contains("orders") && log.contains("HttpClassifier"), "{log}");

    let retry = Retry::attempts("orders", 2).unwrap();
    let log = warnings(async {
        for _ in 0..3 {
            retry.layer().layer(service).oneshot(request()).await.unwrap();
        }
    });
    let log = log.await;
    assert_eq!(log.matches("counts every HTTP response as a success").count(), 1, "{log}");
    assert_eq!(log.matches("every failed HTTP request is retried").count(), 1, "{log}");

    let stack = stack::client("orders").build().unwrap();
    let log = warnings(async { stack.layer(service).oneshot(request()).await.unwrap() }).await;
    assert_eq!(log.lines().count(), 3, "breaker, and twice the retry: {log}");

    let (url, _) = failing_server().await;
    let log = warnings(async {
        let client = breaker_around_reqwest();
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
        client.oneshot(request).await.unwrap();
    });
    assert_eq!(log.await.lines().count(), 1);
}

fn breaker_around_reqwest()
-> impl tower::Service<reqwest::Request, Response = reqwest::Response, Error = Error<reqwest::Error>> {
    let breaker = CircuitBreaker::new("orders");
    ServiceBuilder::new().circuit_breaker(&breaker, DefaultClassifier).adapt_error().service(reqwest::Client::new())
}

#[tokio::test]
async fn layers_that_fit_do_not_warn() {
    let service =
        tower::service_fn(|_: http::Request<()>| async { Ok::<_, Error<io::Error>>(http::Response::new(())) });
    let stack = stack::client("orders").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build().unwrap();
    let log = warnings(async { stack.layer(service).oneshot(http::Request::new(())).await.unwrap() }).await;
    assert_eq!(log, "");
    let plain = tower::service_fn(|_: u32| async { Ok::<_, tower_rampart::BoxError>(7) });
    let stack = stack::client("orders").build().unwrap();
    assert_eq!(warnings(async { stack.layer(plain).oneshot(1).await.unwrap() }).await, "");
}
