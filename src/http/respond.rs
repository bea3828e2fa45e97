use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::error::Rejection;

/// Turns rejections into HTTP responses, for servers.
///
/// | rejection | status | headers |
/// |---|---|---|
/// | `RateLimited` | 429 | `Retry-After`, `RateLimit`, `RateLimit-Policy` |
/// | `CircuitOpen`, `BulkheadFull`, `QueueTimeout` | 503 | `Retry-After` |
/// | `TimedOut` | 504 | |
///
/// `Retry-After` is in whole seconds, rounded up. If the rejection has no time, it is one second
/// ([`retry_after`](Self::retry_after)). A call that costs more than the limiter's burst can never
/// pass, so its response has no `Retry-After`. The `RateLimit` fields are those of
/// draft-ietf-httpapi-ratelimit-headers and contain the first 64 characters of the limiter's name;
/// no other part of a response discloses names.
///
/// Pass the function to [`RespondLayer`](crate::RespondLayer), or to a stack:
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
/// To customize the response, pass a closure that starts from [`response`](Self::response):
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
/// For gRPC servers, use [`grpc_response`].
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
    /// Responds with a line of text.
    pub const fn plain() -> Self {
        Self { format: Format::Plain, retry_after: Some(Duration::from_secs(1)), x_headers: false }
    }

    /// Responds with a problem detail (RFC 9457). In addition to the standard members it has
    /// `reason`, such as `"rate_limited"`, and, whenever the response has `Retry-After`,
    /// `retry_after` in seconds.
    pub const fn problem_json() -> Self {
        Self { format: Format::ProblemJson, ..Self::plain() }
    }

    /// Sets the `Retry-After` of a 503 whose rejection has no time. `None` omits the header.
    pub const fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Adds `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (in seconds from
    /// now), for clients that do not understand the newer fields.
    pub const fn x_rate_limit(mut self) -> Self {
        self.x_headers = true;
        self
    }

    /// Returns the function to pass to a [`RespondLayer`](crate::RespondLayer).
    pub fn respond<B: From<String>>(self) -> impl Fn(Rejection) -> Response<B> + Copy + Send + Sync + 'static {
        move |rejection| self.response(&rejection)
    }

    /// Returns the response to this rejection.
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
                // None of these texts needs escaping.
                let members =
                    format!(r#""type":"about:blank","title":"{title}","status":{status},"detail":"{detail}""#);
                ("application/problem+json", format!(r#"{{{members},"reason":"{reason}"{after}}}"#))
            }
        }
    }
}

/// Rounds up to whole seconds, to at least one, because zero would mean now.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// The most of a limiter's name that a header shows, in characters.
const MAX_NAME: usize = 64;

/// Formats the beginning of a name as a structured-field string (RFC 9651). Characters that it
/// cannot hold unescaped become `_`.
fn quoted(name: &str) -> String {
    let plain = |char: char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\');
    let name: String = name.chars().take(MAX_NAME).map(|char| if plain(char) { char } else { '_' }).collect();
    format!("\"{name}\"")
}

/// Turns a rejection into a gRPC response: `grpc-status` in the headers, and no body.
///
/// `CircuitOpen` is `UNAVAILABLE`, `BulkheadFull`, `QueueTimeout` and `RateLimited` are
/// `RESOURCE_EXHAUSTED`, `TimedOut` is `DEADLINE_EXCEEDED`. If the rejection has a `retry_after`,
/// `grpc-retry-pushback-ms` carries it.
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
