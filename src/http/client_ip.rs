use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ::http::{Extensions, HeaderMap, HeaderName, Request, header};

/// The address of a request's client, as a key for limits.
///
/// By default that is the peer of the connection, and no header is believed. Behind proxies that is the last proxy's
/// address, the same for everybody; then [`behind`](Self::behind) says how many proxies every request passes, and that
/// many entries are believed of `X-Forwarded-For` or `Forwarded`, counted from the end: each proxy appends the address
/// that it got the request from, so what a client writes into the header itself only ever stands before those. Say no
/// more proxies than there are, and let nobody pass them by: one who can reaches the server with a header of his own.
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
/// // axum's: served with `into_make_service_with_connect_info::<SocketAddr>()`, behind one load balancer.
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
/// # When there is no key
///
/// `None`, which the limiter's [`MissingKey`](crate::rate_limit::MissingKey) decides on, is the answer when the peer is
/// not known, and when the entry that counts is not an address (`unknown`, `_hidden`). A request with fewer entries than
/// proxies has come another way: it has the key of its peer.
///
/// # Other keys
///
/// Any function of the request will do: of a header (`request.headers().get("x-api-key").cloned()`, with a
/// `KeyedRateLimiter<HeaderValue>`), or of what a layer outside has put into the extensions, such as an authenticated
/// user. A header that nobody has verified is no key against an attacker: each new value has fresh limits.
#[derive(Clone)]
pub struct ClientIp<F = ByPeerAddr> {
    peer: F,
    proxies: usize,
    header: ForwardedIn,
}

/// The peer of a request's connection, in the request's extensions: for servers that accept connections themselves, such
/// as those of plain hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Finds the peer in [`PeerAddr`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPeerAddr;

/// Finds the peer's address in a request's extensions.
pub trait Peer {
    /// The address, if it is known.
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

/// The header in which proxies say whom they got a request from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardedIn {
    /// `X-Forwarded-For`, which nearly all have.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientIp {
    /// The peer, by [`PeerAddr`].
    pub const fn new() -> Self {
        Self { peer: ByPeerAddr, proxies: 0, header: ForwardedIn::XForwardedFor }
    }

    /// The peer, by what the server leaves in the extensions: axum's `ConnectInfo`, tonic's `TcpConnectInfo`.
    pub fn from_peer<F>(peer: F) -> ClientIp<F>
    where
        F: Fn(&Extensions) -> Option<IpAddr>,
    {
        ClientIp { peer, proxies: 0, header: ForwardedIn::XForwardedFor }
    }
}

impl Default for ClientIp {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> ClientIp<P> {
    /// Every request passes so many proxies that can be trusted, and that append to this header. Zero: no header is
    /// believed.
    pub fn behind(mut self, proxies: usize, header: ForwardedIn) -> Self {
        (self.proxies, self.header) = (proxies, header);
        self
    }
}

impl<P: Peer> ClientIp<P> {
    /// The client's key.
    pub fn key<B>(&self, request: &Request<B>) -> Option<IpKey> {
        self.address(request).map(IpKey::new)
    }

    /// The client's address.
    pub fn address<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = || self.peer.peer(request.extensions()).map(|ip| ip.to_canonical());
        let Some(index) = self.proxies.checked_sub(1) else { return peer() };
        match self.header {
            ForwardedIn::XForwardedFor => {
                const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
                match from_end(request.headers(), &X_FORWARDED_FOR, index) {
                    Some(entry) => address(entry),
                    None => peer(),
                }
            }
            ForwardedIn::Forwarded => match from_end(request.headers(), &header::FORWARDED, index) {
                Some(element) => split_from_end(element, b';').find_map(for_parameter).and_then(address),
                None => peer(),
            },
        }
    }
}

/// The entry at `index`, counted from the end of the list that all lines of the header make.
fn from_end<'h>(headers: &'h HeaderMap, name: &HeaderName, index: usize) -> Option<&'h [u8]> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| split_from_end(line.as_bytes(), b',')).nth(index)
}

/// Splits at separators outside of quotes, from the end: what the proxies have appended is well formed, whatever the
/// client wrote before it.
fn split_from_end(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let at = text.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == separator && !quoted
        });
        rest = at.map(|at| &text[..at]);
        Some(at.map_or(text, |at| &text[at + 1..]).trim_ascii())
    })
}

fn for_parameter(parameter: &[u8]) -> Option<&[u8]> {
    let (name, value) = parameter.split_at_checked(4)?;
    name.eq_ignore_ascii_case(b"for=").then_some(value)
}

/// An address, with or without a port, brackets and quotes.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches('"');
    let bare = || text.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address: Option<IpAddr> = bare().or_else(with_port).or_else(in_brackets);
    address.map(|ip| ip.to_canonical())
}

impl<P> fmt::Debug for ClientIp<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIp").field("proxies", &self.proxies).field("header", &self.header).finish_non_exhaustive()
    }
}

/// A client's address as a key: an IPv4 address, or the /64 of an IPv6 address, since that is what one client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpKey(IpAddr);

impl IpKey {
    /// The key of this address. An IPv4 address that is mapped into IPv6 is an IPv4 address.
    pub fn new(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        })
    }
}

impl fmt::Display for IpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(prefix) => write!(f, "{prefix}/64"),
        }
    }
}
