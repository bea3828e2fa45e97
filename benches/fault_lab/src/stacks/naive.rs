//! Hand-written protection, as it is usually done first.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower::{ServiceExt, service_fn};

use crate::sim::{Client, Fault, Request, Response, Stack, StackContext, boxed};

/// The hand-written timeout, the same as the attempt timeout of rampart's client stack.
const TIMEOUT: Duration = Duration::from_secs(2);

async fn within_timeout(service: Client, request: Request) -> Result<Response, Fault> {
    timeout(TIMEOUT, service.oneshot(request)).await.unwrap_or(Err(Fault::OtherLibrary { timed_out: true }))
}

/// No protection at all.
pub struct Unprotected;

impl Stack for Unprotected {
    fn name(&self) -> &str {
        "none"
    }

    fn client(&self, _: &StackContext, link: Client) -> Client {
        link
    }
}

/// A timeout around each call.
pub struct TimeoutOnly;

impl Stack for TimeoutOnly {
    fn name(&self) -> &str {
        "timeout"
    }

    fn client(&self, _: &StackContext, link: Client) -> Client {
        boxed(service_fn(move |request| within_timeout(link.clone(), request)))
    }
}

/// Up to three attempts without a delay, each with a timeout.
pub struct NaiveRetry;

impl Stack for NaiveRetry {
    fn name(&self) -> &str {
        "naive retry"
    }

    fn client(&self, _: &StackContext, link: Client) -> Client {
        retries(link, |_| Duration::ZERO)
    }
}

/// Up to three attempts, with delays of 100 ms and 200 ms, each with a timeout.
pub struct BackoffWithoutJitter;

impl Stack for BackoffWithoutJitter {
    fn name(&self) -> &str {
        "backoff, no jitter"
    }

    fn client(&self, _: &StackContext, link: Client) -> Client {
        retries(link, |attempt| Duration::from_millis(100 << attempt))
    }
}

fn retries(service: Client, delay: fn(u32) -> Duration) -> Client {
    boxed(service_fn(move |request| {
        let service = service.clone();
        async move {
            let mut result = within_timeout(service.clone(), request).await;
            for attempt in 0..2 {
                if result.is_ok() {
                    break;
                }
                sleep(delay(attempt)).await;
                result = within_timeout(service.clone(), request).await;
            }
            result
        }
    }))
}
