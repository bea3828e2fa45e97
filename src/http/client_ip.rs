use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ::http::{Extensions, HeaderMap, HeaderName, Request, header};

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
/// (`unknown`, `_hidden`). The limiter's [`MissingKey`](crate::rate_limit::MissingKey) then
/// decides. A request with fewer entries than proxies did not pass through all of them: it gets the
/// key of its peer.
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
        Self { peer: ByPeerAddr, proxies: 0, header: ForwardedIn::XForwardedFor }
    }

    /// Uses the peer that the server leaves in the extensions: axum's `ConnectInfo`, tonic's
    /// `TcpConnectInfo`.
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
        self.address(request).map(IpKey::new)
    }

    /// Returns the client's address.
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

/// Returns the entry at `index`, counted from the end of all lines of the header together.
fn from_end<'h>(headers: &'h HeaderMap, name: &HeaderName, index: usize) -> Option<&'h [u8]> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| split_from_end(line.as_bytes(), b',')).nth(index)
}

/// Splits at separators outside quotes, from the end: the entries appended by the proxies are well
/// formed, whatever the client wrote before them.
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

/// Parses an address, with or without a port, brackets and quotes.
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

/// A client's address as a key: an IPv4 address, or the /64 prefix of an IPv6 address, since one
/// client has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpKey(IpAddr);

impl IpKey {
    /// Returns the key of this address. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn new(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        })
    }

    /// Returns the network of an IPv4 address: its first `bits` bits. `None` for IPv6.
    pub fn ipv4_network(&self, bits: u8) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.0 else { return None };
        let mask = u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(bits))).unwrap_or(0);
        Some(Ipv4Addr::from_bits(ip.to_bits() & mask))
    }

    /// Returns the network of an IPv6 address: its first `bits` bits, which are those of a larger
    /// network if `bits` is less than the key has. `None` for IPv4. A key for
    /// [limits within limits](crate::rate_limit::KeyedRateLimiter#limits-within-limits).
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv4Addr};
    /// use tower_rampart::http::IpKey;
    ///
    /// let key = IpKey::new("2001:db8:1:2ff::1".parse()?);
    /// assert_eq!(key.ipv6_network(56).unwrap().to_string(), "2001:db8:1:200::");
    /// assert_eq!(key.ipv6_network(48).unwrap().to_string(), "2001:db8:1::");
    /// assert_eq!((key.ipv6_network(0).unwrap().to_bits(), key.ipv4_network(24)), (0, None));
    /// let key = IpKey::new("192.0.2.7".parse()?);
    /// assert_eq!((key.ipv4_network(24), key.ipv6_network(48)), (Some(Ipv4Addr::new(192, 0, 2, 0)), None));
    /// assert_eq!((key.ipv4_network(0), key.ipv4_network(99)), (Some(Ipv4Addr::UNSPECIFIED), Some("192.0.2.7".parse()?)));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn ipv6_network(&self, bits: u8) -> Option<Ipv6Addr> {
        let IpAddr::V6(ip) = self.0 else { return None };
        let mask = u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(bits))).unwrap_or(0);
        Some(Ipv6Addr::from_bits(ip.to_bits() & mask))
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
