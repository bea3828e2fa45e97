//! The gateway: routes, rate limits, request ids, the dashboard.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_rampart::{
    AsRejection, BoxError, ConfigError, RespondLayer,
    http::{ClientIp, IpKey, Responses},
    rate_limit::{KeyedRateLimiter, Rate},
    stack,
};

use crate::pool::{Answer, Call, Pool};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const USER: HeaderName = HeaderName::from_static("x-user");
/// The largest request body that is accepted.
const MAX_BODY: usize = 64 * 1024;
/// The time limit for each part of the dashboard: a missing part is better than a slow page.
const DASHBOARD: Duration = Duration::from_millis(800);

/// The services behind the gateway.
#[derive(Clone)]
pub struct Gateway {
    pub users: Pool,
    pub orders: Pool,
    pub catalog: Pool,
}

impl Gateway {
    pub fn pools(&self) -> [&Pool; 3] {
        [&self.users, &self.orders, &self.catalog]
    }
}

struct Shared {
    gateway: Gateway,
    logins: Logins,
}

/// The authenticated user.
#[derive(Clone)]
struct User(Arc<str>);

/// The key of the rate limit: a user, or the address of an unauthenticated caller.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Caller {
    User(Arc<str>),
    Address(IpKey),
}

impl Caller {
    /// The network of an IPv6 address. One customer has a whole /48 or /56, and so thousands of
    /// addresses.
    fn network(&self, bits: u8) -> Option<Ipv6Addr> {
        match self {
            Self::User(_) => None,
            Self::Address(address) => address.ipv6_network(bits),
        }
    }
}

/// A login: the address that it comes from, if known, and the account's e-mail address.
type Login = (Option<IpKey>, String);

/// The limits of logins.
///
/// A limit per e-mail address alone would let anyone lock a user out with five requests. So five
/// logins per quarter of an hour are for one e-mail address from one sender. A sender has thirty in
/// all, so it can neither try many accounts nor exhaust the third limit alone: a hundred for one
/// e-mail address from anywhere, against guessing from many addresses.
struct Logins(KeyedRateLimiter<Login>);

impl Logins {
    fn new() -> Result<Self, ConfigError> {
        let rate = |logins| Rate::new(logins, Duration::from_secs(15 * 60));
        let networks = KeyedRateLimiter::<Ipv6Addr>::builder("logins-per-network", rate(300)).build()?;
        let senders = KeyedRateLimiter::<IpKey>::builder("logins-per-sender", rate(30))
            .within(&networks, |sender| sender.ipv6_network(48))
            .build()?;
        let emails = KeyedRateLimiter::<str>::builder("logins-per-email", rate(100)).build()?;
        let logins = KeyedRateLimiter::<Login>::builder("logins", rate(5))
            .within(&senders, |(sender, _)| *sender)
            .within(&emails, |(_, email)| Some(email.clone()))
            .build()?;
        Ok(Self(logins))
    }
}

/// Finds the address of the client.
fn client_ip() -> ClientIp<impl Fn(&Extensions) -> Option<IpAddr> + Copy> {
    ClientIp::from_peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
}

/// Builds the gateway's router, to be served with connection info.
pub fn router(gateway: Gateway) -> Result<Router, BoxError> {
    let respond = Responses::problem_json().respond::<Body>();
    // A burst of a hundred, then one more every 600 ms.
    let per_48 = KeyedRateLimiter::<Ipv6Addr>::builder("requests-per-48", Rate::per_minute(1000)).build()?;
    let per_56 = KeyedRateLimiter::<Ipv6Addr>::builder("requests-per-56", Rate::per_minute(300))
        .within(&per_48, |network| IpKey::new((*network).into()).ipv6_network(48))
        .build()?;
    let per_caller = KeyedRateLimiter::<Caller>::builder("requests", Rate::per_minute(100))
        .within(&per_56, |caller: &Caller| caller.network(56))
        .build()?;
    let address = client_ip();
    let per_caller = per_caller.layer(move |request: &Request| match request.extensions().get::<User>() {
        Some(User(user)) => Some(Caller::User(user.clone())),
        None => address.key(request).map(Caller::Address),
    });
    let protection = stack::server("gateway").total_timeout(Duration::from_secs(5)).build()?;
    let shared = Arc::new(Shared { gateway, logins: Logins::new()? });
    Ok(Router::new()
        .route("/api/dashboard", get(dashboard))
        .route("/api/{service}/{*path}", any(forward))
        .route_layer(RespondLayer::new(per_caller, respond))
        .route("/login", post(login))
        .layer(middleware::from_fn(authenticate))
        .layer(protection.respond(respond))
        // Outside of the protection: operators need it when the gateway is overloaded.
        .route("/health", get(health))
        .layer(middleware::from_fn(request_id))
        .with_state(shared))
}

/// Keeps a request's id if it is valid, and assigns one otherwise.
async fn request_id(mut request: Request, next: Next) -> Response {
    let valid = |id: &&HeaderValue| {
        let letters = id.as_bytes();
        (8..=64).contains(&letters.len()) && letters.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    };
    let id = match request.headers().get(REQUEST_ID).filter(valid) {
        Some(id) => id.clone(),
        None => {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            HeaderValue::try_from(format!("{time:x}-{:016x}", rand::random::<u64>()))
                .expect("the id is valid header text")
        }
    };
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Stands in for real authentication: the token `user-alice` is Alice's. Callers cannot set the
/// internal user header themselves.
async fn authenticate(mut request: Request, next: Next) -> Response {
    request.headers_mut().remove(USER);
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(user) = token.and_then(|token| token.strip_prefix("Bearer user-")) {
        // The name is used in paths and headers.
        let valid = !user.is_empty() && user.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let (true, Ok(value)) = (valid, HeaderValue::try_from(user)) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let user = User(user.into());
        request.headers_mut().insert(USER, value);
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// Forwards `/api/orders/7` to `/7` of the orders service.
async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // The path stays encoded: with `%2F` or `%3F` decoded it would be another path.
    let full_path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let routed = full_path.strip_prefix("/api/").and_then(|rest| Some(rest.split_at(rest.find('/')?)));
    let Some((service, path)) = routed else { return StatusCode::NOT_FOUND.into_response() };
    let Some(pool) = shared.gateway.pools().into_iter().find(|pool| pool.name() == service) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(path) = PathAndQuery::try_from(path) else { return StatusCode::BAD_REQUEST.into_response() };
    match read(request).await {
        Ok((head, body)) => to_response(pool.send(call(head, path, body)).await),
        Err(status) => status.into_response(),
    }
}

/// Logins are limited by sender and by e-mail address.
async fn login(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let sender = client_ip().key(&request);
    let (head, body) = match read(request).await {
        Ok(read) => read,
        Err(status) => return status.into_response(),
    };
    let form: Option<Value> = serde_json::from_slice(&body).ok();
    let email = form.as_ref().and_then(|form| form["email"].as_str()).map(|email| email.trim().to_lowercase());
    let Some(email) = email.filter(|email| email.contains('@')) else {
        return (StatusCode::BAD_REQUEST, "the e-mail address is missing").into_response();
    };
    if let Err(rejection) = shared.logins.0.check_key(&(sender, email)) {
        return Responses::problem_json().response(&rejection);
    }
    to_response(shared.gateway.users.send(call(head, PathAndQuery::from_static("/login"), body)).await)
}

/// Queries three services concurrently, and shows the parts that arrive in time.
async fn dashboard(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let user = head.extensions.get::<User>().map_or("anonymous", |User(name)| name).to_owned();
    let Gateway { users, orders, catalog } = &shared.gateway;
    let parts = [(users, format!("/{user}")), (orders, format!("/of/{user}")), (catalog, "/featured".to_owned())];
    let parts =
        futures_util::future::join_all(parts.into_iter().map(|(pool, path)| part(pool, call_get(&head, &path)))).await;
    let complete = parts.iter().filter(|(_, part)| part["status"] == "complete").count();
    let status = if complete > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body: Value =
        parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect::<serde_json::Map<_, _>>().into();
    json_response(status, &body)
}

async fn part(pool: &Pool, call: Call) -> (&'static str, Value) {
    let fetched = async {
        let response = pool.send(call).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>((status, body))
    };
    // This deadline is passed on to the services.
    let limit = tower_rampart::timeout::Timeout::new("dashboard", DASHBOARD);
    let shown = match limit.run(fetched).await {
        Ok((status, body)) if status.is_success() => match serde_json::from_slice::<Value>(&body) {
            Ok(data) => json!({ "status": "complete", "data": data }),
            Err(_) => json!({ "status": "degraded", "reason": "unreadable response" }),
        },
        Ok((status, _)) => json!({ "status": "degraded", "reason": status.as_str() }),
        Err(error) => {
            let reason = error.as_rejection().map_or("unreachable", |rejection| rejection.reason());
            json!({ "status": "degraded", "reason": reason })
        }
    };
    (pool.name(), shown)
}

/// Reports the circuits, and whether every service has an instance in rotation.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let pools = shared.gateway.pools();
    let instances = |pool: &Pool| -> Value {
        let of = |member: &Arc<crate::pool::Member>| {
            json!({
                "instance": member.name,
                "address": member.authority.as_str(),
                "circuit": member.state().to_string(),
                "in_rotation": member.in_rotation(),
            })
        };
        pool.members().iter().map(of).collect()
    };
    let up = pools.iter().all(|pool| pool.is_up());
    let services: serde_json::Map<_, _> = pools.iter().map(|pool| (pool.name().to_owned(), instances(pool))).collect();
    let status = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, &json!({ "status": if up { "up" } else { "down" }, "services": services }))
}

async fn read(request: Request) -> Result<(http::request::Parts, Bytes), StatusCode> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    Ok((head, body))
}

/// Builds the request to a service, without connection headers and credentials.
fn call(head: http::request::Parts, path: PathAndQuery, body: Bytes) -> Call {
    let mut call = Call::new(Full::new(body));
    *call.method_mut() = head.method;
    *call.uri_mut() = path.into();
    for name in [REQUEST_ID, USER, header::CONTENT_TYPE, header::ACCEPT, HeaderName::from_static("idempotency-key")] {
        if let Some(value) = head.headers.get(&name) {
            call.headers_mut().insert(name, value.clone());
        }
    }
    call
}

fn call_get(head: &http::request::Parts, path: &str) -> Call {
    let mut head = head.clone();
    head.method = Method::GET;
    call(head, PathAndQuery::try_from(path).expect("names are valid in paths"), Bytes::new())
}

fn to_response(result: Result<Answer, BoxError>) -> Response {
    match result {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            // The caller's connection has its own framing.
            head.headers.remove(header::CONNECTION);
            head.headers.remove(header::TRANSFER_ENCODING);
            Response::from_parts(head, Body::new(body))
        }
        Err(error) => match error.as_rejection() {
            Some(rejection) => Responses::problem_json().response(rejection),
            None => StatusCode::BAD_GATEWAY.into_response(),
        },
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
