use std::fmt;

use ::http::{
    HeaderMap, Request, Uri,
    header::HOST,
    uri::{Authority, Scheme},
};

/// Where a request is sent: host and port, as a key for [`per_key`](crate::per_key).
///
/// Different spellings of a destination are one key. The host is in lower case and without the dot
/// at its end, the scheme's default port (80 for `http` and `ws`, 443 for `https` and `wss`) is
/// filled in, and user names are left out. An IPv6 address is in its shortest form.
///
/// ```
/// use http::Request;
/// use tower_rampart::{circuit_breaker::CircuitBreaker, http::Destination, per_key::PerKey};
///
/// let breakers = PerKey::<Destination, _>::builder("upstream", |name| CircuitBreaker::builder(name).build()).build()?;
/// let layer = breakers.layer(Destination::of::<String>, CircuitBreaker::layer);
/// # let _ = layer;
///
/// let of = |uri: &str| Destination::of(&Request::get(uri).body(()).unwrap()).unwrap();
/// assert_eq!(of("http://A.example/items"), of("http://a.example:80"));
/// assert_eq!(of("https://a.example/").to_string(), "a.example:443");
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    host: Box<str>,
    /// `None` if the scheme has no known default.
    port: Option<u16>,
}

impl Destination {
    /// Returns the destination of a request: that of its URI, or else that of its `Host` header.
    /// `None` if it has neither, or if they are malformed.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        Self::of_uri(request.uri()).or_else(|| Self::of_host(request.headers()))
    }

    /// Returns the destination of an absolute URI.
    pub fn of_uri(uri: &Uri) -> Option<Self> {
        Self::of_authority(uri.authority()?, uri.scheme())
    }

    /// A request with a relative URI does not say its scheme; without TLS, it is `http`.
    fn of_host(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(HOST).iter();
        let (Some(host), None) = (values.next(), values.next()) else { return None };
        Self::of_authority(&Authority::try_from(host.as_bytes()).ok()?, Some(&Scheme::HTTP))
    }

    fn of_authority(authority: &Authority, scheme: Option<&Scheme>) -> Option<Self> {
        let default = match scheme.map(Scheme::as_str) {
            Some("http" | "ws") => Some(80),
            Some("https" | "wss") => Some(443),
            _ => None,
        };
        let host = authority.host();
        // An empty port stands for the default.
        let given = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, address)| address);
        let port = match given.strip_prefix(host)?.strip_prefix(':') {
            None | Some("") => default,
            Some(port) => Some(port.parse().ok()?),
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match address.map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(address)) => format!("[{address}]"),
            _ => host.trim_end_matches('.').to_ascii_lowercase(),
        };
        (!host.is_empty()).then(|| Self { host: host.into(), port })
    }

    /// Returns the host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, if it is given or the scheme's default is known.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}
