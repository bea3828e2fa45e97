//! R38: HTTP responses carry the mark of a retry that has stopped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::{Response, StatusCode};
use tower_rampart::{BoxError, http::HttpClassifier, retry::Retry};

use crate::builder;

fn status(status: StatusCode) -> Result<Response<()>, BoxError> {
    Ok(Response::builder().status(status).body(()).unwrap())
}

fn retry() -> Retry {
    builder().no_budget().build().unwrap()
}

/// A call that fails, with its own retries.
async fn down(inner: &Retry, calls: &AtomicUsize) -> Result<Response<()>, BoxError> {
    let attempt = |_| {
        calls.fetch_add(1, SeqCst);
        async { status(StatusCode::SERVICE_UNAVAILABLE) }
    };
    inner.run_with(HttpClassifier::new(), attempt).await
}

#[tokio::test(start_paused = true)]
async fn the_mark_travels_in_the_response_across_polls() {
    let (outer, inner, calls) = (retry(), retry(), Arc::new(AtomicUsize::new(0)));
    let attempt = |_| async {
        let response = down(&inner, &calls).await;
        tokio::task::yield_now().await;
        response
    };
    let response = outer.run_with(HttpClassifier::new(), attempt).await.unwrap();
    assert_eq!((response.status(), calls.load(SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 3));
}

#[tokio::test(start_paused = true)]
async fn a_side_call_does_not_stop_the_main_call() {
    for yields in [false, true] {
        let (outer, inner, calls) = (retry(), retry(), Arc::new(AtomicUsize::new(0)));
        let attempt = |attempt: u32| {
            let (inner, calls) = (&inner, &calls);
            async move {
                let _ = down(inner, calls).await;
                if yields {
                    tokio::task::yield_now().await;
                }
                status(if attempt < 3 { StatusCode::BAD_GATEWAY } else { StatusCode::OK })
            }
        };
        let response = outer.run_with(HttpClassifier::new(), attempt).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "yields: {yields}");
        assert_eq!(calls.load(SeqCst), 5, "the side call's retries are bounded all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_replaces_a_marked_one_is_retried_and_stays_bounded() {
    let (outer, inner, calls) = (retry(), retry(), Arc::new(AtomicUsize::new(0)));
    let attempt = |_| async {
        let _ = down(&inner, &calls).await;
        status(StatusCode::BAD_GATEWAY)
    };
    outer.run_with(HttpClassifier::new(), attempt).await.unwrap();
    assert_eq!(calls.load(SeqCst), 3 + 2);
}
