use std::{fmt, marker::PhantomData, time::Duration};

use ::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{RequestHead, full_response::has_no_body};
use crate::error::{Rejection, RespondOnce, Responder};

/// Turns rejections into HTTP responses, for servers.
///
/// | rejection | status | headers |
/// |---|---|---|
/// | `RateLimited` | 429 | `Retry-After`, `RateLimit`, `RateLimit-Policy` |
/// | `CircuitOpen`, `CircuitRecovering`, `BulkheadFull`, `QueueTimeout` | 503 | `Retry-After` |
/// | `TimedOut` | 504 | |
///
/// `Retry-After` is in whole seconds, rounded up. If the rejection has no time, there is no header
/// unless [`retry_after`](Self::retry_after) sets one: when a permit will be free is not known, and
/// clients take the header as speaking for the whole server. A call that costs more than the
/// limiter's burst can never pass, so its response has no `Retry-After`. The `RateLimit` fields are
/// those of draft-ietf-httpapi-ratelimit-headers and contain the first 64 characters of the
/// limiter's name; no other part of a response discloses names.
///
/// Responses to HEAD have no body.
///
/// Pass [`respond`](Self::respond) to [`RespondLayer`](crate::RespondLayer), or to a stack:
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
/// To customize the response, pass a closure to [`respond_with`](Self::respond_with):
///
/// ```
/// use http::Response;
/// use tower_rampart::{Rejection, http::Responses};
///
/// let responses = Responses::plain().respond_with(|rejection: &Rejection, mut response: Response<String>| {
///     response.headers_mut().insert("x-reason", rejection.reason().parse().unwrap());
///     response
/// });
/// # let _ = responses;
/// let plain: Response<String> = Responses::plain().response(&Rejection::bulkhead_full("db", 16));
/// assert!(!plain.headers().contains_key("retry-after"));
/// ```
///
/// A closure of your own that starts from [`response`](Self::response) does not see the request.
/// Over HTTP/2, a body on a response to HEAD breaks the protocol: if the server passes HEAD
/// requests to the service, use `respond_with`.
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
        Self { format: Format::Plain, retry_after: None, x_headers: false }
    }

    /// Responds with a problem detail (RFC 9457). In addition to the standard members it has
    /// `reason`, such as `"rate_limited"`, and, whenever the response has `Retry-After`,
    /// `retry_after` in seconds.
    pub const fn problem_json() -> Self {
        Self { format: Format::ProblemJson, ..Self::plain() }
    }

    /// Sets the `Retry-After` of a 503 whose rejection has no time. `None`, the default, omits the
    /// header.
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

    /// Returns the [`Responder`] to pass to a [`RespondLayer`](crate::RespondLayer).
    pub fn respond<B: From<String>>(self) -> HttpResponder<B> {
        self.respond_with(Unchanged)
    }

    /// Returns the [`Responder`] to pass to a [`RespondLayer`](crate::RespondLayer), with a closure
    /// that customizes each response. The body of a response that must not have one is removed
    /// afterwards.
    pub fn respond_with<B, F>(self, customize: F) -> HttpResponder<B, F>
    where
        B: From<String>,
        F: Customize<B>,
    {
        HttpResponder { responses: self, customize, body: PhantomData }
    }

    /// Returns the response to this rejection, for any method but HEAD.
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

/// Responds to rejected HTTP requests. Made by [`Responses::respond`].
pub struct HttpResponder<B, F = Unchanged> {
    responses: Responses,
    customize: F,
    body: PhantomData<fn() -> B>,
}

/// Customizes responses to rejections. Implemented for closures of the rejection and the response.
pub trait Customize<B> {
    /// Returns the response to send.
    fn customize(&self, rejection: &Rejection, response: Response<B>) -> Response<B>;
}

/// Leaves responses as they are. See [`Responses::respond`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unchanged;

impl<B> Customize<B> for Unchanged {
    fn customize(&self, _rejection: &Rejection, response: Response<B>) -> Response<B> {
        response
    }
}

impl<B, F> Customize<B> for F
where
    F: Fn(&Rejection, Response<B>) -> Response<B>,
{
    fn customize(&self, rejection: &Rejection, response: Response<B>) -> Response<B> {
        self(rejection, response)
    }
}

impl<B, F, Req> Responder<Req> for HttpResponder<B, F>
where
    B: From<String>,
    F: Customize<B> + Clone,
    Req: RequestHead,
{
    type Response = Response<B>;
    type ForRequest = RespondToMethod<B, F>;

    fn for_request(&self, request: &Req) -> RespondToMethod<B, F> {
        RespondToMethod { responder: self.clone(), method: request.method().clone() }
    }
}

/// Responds to a rejected request of a method. Made by [`HttpResponder`].
#[derive(Clone, Debug)]
pub struct RespondToMethod<B, F> {
    responder: HttpResponder<B, F>,
    method: Method,
}

impl<B, F> RespondOnce for RespondToMethod<B, F>
where
    B: From<String>,
    F: Customize<B>,
{
    type Response = Response<B>;

    fn respond(self, rejection: Rejection) -> Response<B> {
        let HttpResponder { responses, customize, .. } = self.responder;
        let mut response = customize.customize(&rejection, responses.response(&rejection));
        if has_no_body(&self.method, response.status()) {
            *response.body_mut() = B::from(String::new());
        }
        response
    }
}

impl<B, F: Clone> Clone for HttpResponder<B, F> {
    fn clone(&self) -> Self {
        Self { responses: self.responses, customize: self.customize.clone(), body: PhantomData }
    }
}

impl<B, F: Copy> Copy for HttpResponder<B, F> {}

impl<B, F> fmt::Debug for HttpResponder<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponder").field("responses", &self.responses).finish_non_exhaustive()
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
/// `CircuitOpen` and `CircuitRecovering` are `UNAVAILABLE`, `BulkheadFull`, `QueueTimeout` and
/// `RateLimited` are `RESOURCE_EXHAUSTED`, `TimedOut` is `DEADLINE_EXCEEDED`. If the rejection has
/// a `retry_after`, `grpc-retry-pushback-ms` carries it.
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
