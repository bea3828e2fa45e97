use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ::http::{Extensions, Request};

use super::{
    forwarded::{self, Hop},
    key::{IpKey, canonical},
};

/// Finds the address of a request's client, to use as a key for limits.
///
/// By default this is the peer of the connection, and no header is trusted. Behind proxies, the
/// peer is the last proxy and the same for every client. [`behind`](Self::behind) then sets how
/// many proxies each request passes through, and trusts that many entries of `X-Forwarded-For` or
/// `Forwarded`, counted from the end. Each proxy appends the address from which it received the
/// request, so entries that a client writes itself always come before the trusted ones.
///
/// Do not set more proxies than there are, and do not let clients bypass them: a client that
/// reaches the server directly chooses the header itself.
///
/// ```
/// use std::net::SocketAddr;
/// use axum::{body::Body, extract::ConnectInfo};
/// use http::Request;
/// use tower_rampart::{
///     RespondLayer,
///     http::{ClientIp, ForwardedIn, IpKey, Responses},
///     rate_limit::{KeyedRateLimiter, Rate},
/// };
///
/// let limiter = KeyedRateLimiter::<IpKey>::builder("per-client", Rate::per_minute(100)).build()?;
/// // For axum, served with `into_make_service_with_connect_info::<SocketAddr>()`, behind one load balancer.
/// let client = ClientIp::from_peer(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()))
///     .behind(1, ForwardedIn::XForwardedFor);
/// let layer = RespondLayer::new(
///     limiter.layer(move |request: &Request<Body>| client.key(request)),
///     Responses::plain().respond::<Body>(),
/// );
/// # let _ = layer;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
///
/// # Requests without a key
///
/// The key is `None` when the peer is unknown, or when the entry that counts is not an address
/// (`unknown`, `_hidden`) or is malformed. The limiter's
/// [`MissingKey`](crate::rate_limit::MissingKey) then decides. A request with fewer entries than
/// proxies did not pass through all of them: it gets the key of its peer. Entries before the one
/// that counts are not read, however malformed they are, and empty entries are not counted.
///
/// # IPv6
///
/// Addresses that stand for an IPv4 address are returned as that. For other IPv6 addresses, the key
/// is their network: its prefix length is 64 bits, unless [`ipv6_prefix`](Self::ipv6_prefix) sets
/// another.
///
/// # Other keys
///
/// Any function of the request can be a key: a header
/// (`request.headers().get("x-api-key").cloned()`, with a `KeyedRateLimiter<HeaderValue>`), or an
/// extension that an outer layer added, such as an authenticated user. An unverified header is no
/// protection against an attacker: each new value starts with fresh limits.
#[derive(Clone)]
pub struct ClientIp<F = ByPeerAddr> {
    peer: F,
    proxies: usize,
    header: ForwardedIn,
    ipv6_prefix: u8,
}

/// The peer of a request's connection. Servers that accept connections themselves, such as those of
/// plain hyper, insert it into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Reads the peer from [`PeerAddr`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPeerAddr;

/// Finds the peer's address in a request's extensions.
pub trait Peer {
    /// Returns the address, if it is known.
    fn peer(&self, extensions: &Extensions) -> Option<IpAddr>;
}

impl Peer for ByPeerAddr {
    fn peer(&self, extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<PeerAddr>().map(|peer| peer.0.ip())
    }
}

impl<F: Fn(&Extensions) -> Option<IpAddr>> Peer for F {
    fn peer(&self, extensions: &Extensions) -> Option<IpAddr> {
        self(extensions)
    }
}

/// The header in which proxies record the address from which they received a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardedIn {
    /// `X-Forwarded-For`, which nearly all proxies send.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientIp {
    /// Uses the peer given by [`PeerAddr`].
    pub const fn new() -> Self {
        Self::of_peer(ByPeerAddr)
    }

    /// Uses the peer that the server leaves in the extensions: axum's `ConnectInfo`, tonic's
    /// `TcpConnectInfo`.
    pub fn from_peer<F>(peer: F) -> ClientIp<F>
    where
        F: Fn(&Extensions) -> Option<IpAddr>,
    {
        ClientIp::of_peer(peer)
    }
}

impl Default for ClientIp {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> ClientIp<P> {
    const fn of_peer(peer: P) -> Self {
        let ipv6_prefix = IpKey::DEFAULT_IPV6_PREFIX;
        Self { peer, proxies: 0, header: ForwardedIn::XForwardedFor, ipv6_prefix }
    }

    /// Sets the prefix length of IPv6 keys, in bits; 64 by default. See
    /// [`IpKey::with_ipv6_prefix`].
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// Sets how many trusted proxies every request passes through, and the header to which they
    /// append. With zero, no header is trusted.
    pub fn behind(mut self, proxies: usize, header: ForwardedIn) -> Self {
        (self.proxies, self.header) = (proxies, header);
        self
    }
}

impl<P: Peer> ClientIp<P> {
    /// Returns the client's key.
    pub fn key<B>(&self, request: &Request<B>) -> Option<IpKey> {
        self.address(request).map(|ip| IpKey::with_ipv6_prefix(ip, self.ipv6_prefix))
    }

    /// Returns the client's address.
    pub fn address<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = || self.peer.peer(request.extensions());
        let address = match self.proxies.checked_sub(1) {
            None => peer(),
            Some(index) => {
                let hop = match self.header {
                    ForwardedIn::XForwardedFor => forwarded::x_forwarded_for(request.headers(), index),
                    ForwardedIn::Forwarded => forwarded::forwarded(request.headers(), index),
                };
                match hop {
                    Hop::Address(address) => Some(address),
                    Hop::Unknown => None,
                    Hop::Missing => peer(),
                }
            }
        };
        address.map(canonical)
    }
}

impl<P> fmt::Debug for ClientIp<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIp")
            .field("proxies", &self.proxies)
            .field("header", &self.header)
            .field("ipv6_prefix", &self.ipv6_prefix)
            .finish_non_exhaustive()
    }
}
