//! Protecting an axum server.
//!
//! axum's services cannot fail (`Infallible`), so wrap the layers in a
//! [`RespondLayer`](crate::RespondLayer), which turns rejections into responses:
//!
//! ```
//! use std::{net::{Ipv6Addr, SocketAddr}, time::Duration};
//! use axum::{Router, body::Body, extract::ConnectInfo, routing::{get, post}};
//! use http::Request;
//! use tower_rampart::{
//!     RespondLayer,
//!     http::{ClientIp, IpKey, Responses},
//!     rate_limit::{KeyedRateLimiter, Rate},
//!     stack,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let respond = Responses::problem_json().respond::<Body>();
//!
//! // Around one route: five logins per client in 15 minutes, and a hundred per IPv6 /48.
//! let quarter = Duration::from_secs(900);
//! let networks = KeyedRateLimiter::<Ipv6Addr>::builder("login-per-network", Rate::new(100, quarter)).build()?;
//! let logins = KeyedRateLimiter::<IpKey>::builder("login", Rate::new(5, quarter))
//!     .within(&networks, |client| client.ipv6_network(48))
//!     .build()?;
//! let client = ClientIp::from_peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
//! let per_client = logins.layer(move |request: &Request<Body>| client.key(request));
//!
//! // Around everything: a timeout, and a bulkhead with a short queue.
//! let stack = stack::server("shop").total_timeout(Duration::from_secs(5)).build()?;
//!
//! let router: Router = Router::new()
//!     .route("/login", post(|| async { "welcome" }))
//!     .route_layer(RespondLayer::new(per_client, respond))
//!     .route("/", get(|| async { "shop" }))
//!     .layer(stack.respond(respond));
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! let service = router.into_make_service_with_connect_info::<SocketAddr>();
//! tokio::spawn(async move { axum::serve(listener, service).await });
//!
//! let http = reqwest::Client::new();
//! for _ in 0..5 {
//!     assert_eq!(http.post(format!("{url}/login")).send().await?.status(), 200);
//! }
//! let rejected = http.post(format!("{url}/login")).send().await?;
//! assert_eq!(rejected.status(), 429);
//! assert!(rejected.headers().contains_key("retry-after"));
//! assert_eq!(http.get(&url).send().await?.status(), 200);
//! # Ok(()) }
//! ```
//!
//! - **`layer` and `route_layer`.** axum applies a layer to every route that exists at that point,
//!   and clones services for each connection and request. Handles are shared, so the limits are
//!   too.
//! - **IPv6.** A client has at least a /64, and may have a /48: 65,536 keys, enough to fill the
//!   limiter's table and to crowd out others. Limit its networks too, with
//!   [`within`](crate::rate_limit::KeyedRateLimiterBuilder::within). IPv4 addresses stay as they
//!   are, unless [`ipv4_network`](crate::http::IpKey::ipv4_network) groups them as well.
//! - **Accounts.** A limit per account alone lets anyone lock a user out. Limit the pair of address
//!   and account, within a limit per address and a larger one per account, as the example `gateway`
//!   does.
//! - **Keys.** Behind proxies, set how many there are:
//!   [`ClientIp::behind`](crate::http::ClientIp::behind). To limit users, let an outer
//!   authentication layer put the user into the extensions, and read it from there.
//! - **Response bodies.** Permits and timeouts end with the headers. For large bodies that are
//!   produced while they are sent, wrap the layers in a
//!   [`FullResponseLayer`](crate::http::full_response::FullResponseLayer).
//! - **Deadlines.** To honor the callers' deadlines, put
//!   [`DeadlineHeader::receive`](crate::http::DeadlineHeader::receive) outside the stack. Strip the
//!   header at the edge, where callers are not trusted.
