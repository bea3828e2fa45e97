use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::error::Rejection;

/// Makes HTTP responses of rejections, for servers.
///
/// | rejection | status | headers |
/// |---|---|---|
/// | `RateLimited` | 429 | `Retry-After`, `RateLimit`, `RateLimit-Policy` |
/// | `CircuitOpen`, `BulkheadFull`, `QueueTimeout` | 503 | `Retry-After` |
/// | `TimedOut` | 504 | |
///
/// `Retry-After` is in whole seconds, rounded up. Where the rejection does not know a time it is one second
/// ([`retry_after`](Self::retry_after)); a call that costs more than the limiter's burst and so never can pass has none.
/// The `RateLimit` fields are those of draft-ietf-httpapi-ratelimit-headers, and bear the limiter's name; nothing else
/// tells the caller of names. Give the function to [`RespondLayer`](crate::RespondLayer), or to a stack:
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use tower_rampart::{http::Responses, stack};
///
/// let stack = stack::server("api").build()?.respond(Responses::problem_json().respond::<Body>());
/// let router: Router = Router::new().route("/", get(|| async { "hello" })).layer(stack);
/// # let _ = router;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
///
/// A hook of your own is a closure in its place, which may begin with [`response`](Self::response):
///
/// ```
/// use http::Response;
/// use tower_rampart::{Rejection, http::Responses};
///
/// let respond = |rejection: Rejection| {
///     let mut response: Response<String> = Responses::plain().response(&rejection);
///     response.headers_mut().insert("x-reason", rejection.reason().parse().unwrap());
///     response
/// };
/// assert_eq!(respond(Rejection::bulkhead_full("db", 16)).headers()["retry-after"], "1");
/// ```
///
/// gRPC servers take [`grpc_response`].
#[derive(Clone, Copy, Debug)]
pub struct Responses {
    format: Format,
    retry_after: Option<Duration>,
    x_headers: bool,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Plain,
    ProblemJson,
}

impl Responses {
    /// With a line of text.
    pub const fn plain() -> Self {
        Self { format: Format::Plain, retry_after: Some(Duration::from_secs(1)), x_headers: false }
    }

    /// With a problem detail (RFC 9457). Beside the standard members there is `reason`, such as `"rate_limited"`, and
    /// `retry_after`, in seconds, where there is that header.
    pub const fn problem_json() -> Self {
        Self { format: Format::ProblemJson, ..Self::plain() }
    }

    /// The `Retry-After` of a 503 whose rejection does not know a time; `None` for no such header.
    pub const fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (in seconds from now), for clients that
    /// know nothing newer.
    pub const fn x_rate_limit(mut self) -> Self {
        self.x_headers = true;
        self
    }

    /// The function to give to a [`RespondLayer`](crate::RespondLayer).
    pub fn respond<B: From<String>>(self) -> impl Fn(Rejection) -> Response<B> + Copy + Send + Sync + 'static {
        move |rejection| self.response(&rejection)
    }

    /// The response to this rejection.
    pub fn response<B: From<String>>(&self, rejection: &Rejection) -> Response<B> {
        let semantics = rejection.semantics();
        let status = StatusCode::from_u16(semantics.http_status).expect("the table holds valid statuses");
        let default = if status == StatusCode::SERVICE_UNAVAILABLE { self.retry_after } else { None };
        let after = rejection.retry_after().or(default).map(seconds);
        let (content, body) = self.body(status, semantics.http_detail, semantics.reason, after);
        let mut response = Response::new(B::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, after.into());
        }
        if let Rejection::RateLimited { name, limit, .. } = rejection {
            let name = quoted(name.as_str());
            let reset = after.map_or_else(String::new, |after| format!(";t={after}"));
            let fields =
                [("ratelimit-policy", format!("{name};q={limit}")), ("ratelimit", format!("{name};r=0{reset}"))];
            for (field, value) in fields {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(HeaderName::from_static(field), value);
                }
            }
            if self.x_headers {
                headers.insert("x-ratelimit-limit", (*limit).into());
                headers.insert("x-ratelimit-remaining", 0.into());
                if let Some(after) = after {
                    headers.insert("x-ratelimit-reset", after.into());
                }
            }
        }
        response
    }

    fn body(&self, status: StatusCode, detail: &str, reason: &str, after: Option<u64>) -> (&'static str, String) {
        let title = status.canonical_reason().unwrap_or_default();
        match self.format {
            Format::Plain => ("text/plain; charset=utf-8", format!("{title}: {detail}\n")),
            Format::ProblemJson => {
                let after = after.map_or_else(String::new, |after| format!(r#","retry_after":{after}"#));
                let status = status.as_u16();
                // No text in it needs to be escaped.
                let members =
                    format!(r#""type":"about:blank","title":"{title}","status":{status},"detail":"{detail}""#);
                ("application/problem+json", format!(r#"{{{members},"reason":"{reason}"{after}}}"#))
            }
        }
    }
}

/// Whole seconds, rounded up; at least one, since zero means now.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// A string of a structured field (RFC 9651), where only some of ASCII can be.
fn quoted(name: &str) -> String {
    let plain = |char: char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\');
    let name: String = name.chars().map(|char| if plain(char) { char } else { '_' }).collect();
    format!("\"{name}\"")
}

/// The gRPC response to a rejection: `grpc-status` in the headers, and no body.
///
/// `CircuitOpen` is `UNAVAILABLE`, `BulkheadFull`, `QueueTimeout` and `RateLimited` are `RESOURCE_EXHAUSTED`, `TimedOut`
/// is `DEADLINE_EXCEEDED`. Where the rejection knows when to come back, `grpc-retry-pushback-ms` says so.
///
/// ```
/// use tonic::body::Body;
/// use tower_rampart::{http::grpc_response, stack};
///
/// let stack = stack::server("greeter").build()?.respond(grpc_response::<Body>);
/// // tonic::transport::Server::builder().layer(stack).add_service(..)
/// # let _ = stack;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
pub fn grpc_response<B: Default>(rejection: Rejection) -> Response<B> {
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", rejection.semantics().grpc_status.into());
    headers.insert("grpc-message", HeaderValue::from_static(rejection.reason()));
    if let Some(after) = rejection.retry_after() {
        let millis = i32::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        headers.insert("grpc-retry-pushback-ms", millis.into());
    }
    response
}
