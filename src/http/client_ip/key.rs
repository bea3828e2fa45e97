use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A client's address as a key: an IPv4 address, or a prefix of an IPv6 address, since one client
/// has a whole network.
///
/// Keys with prefixes of different lengths are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpKey {
    network: IpAddr,
    /// 32 for IPv4.
    prefix: u8,
}

impl IpKey {
    /// The prefix length of IPv6 keys if none is set: the network of one household or host.
    pub const DEFAULT_IPV6_PREFIX: u8 = 64;

    /// Returns the key of this address, with a /64 prefix if it is IPv6.
    ///
    /// IPv6 addresses that stand for an IPv4 address count as that: mapped ones (`::ffff:0:0/96`)
    /// and those of the translators' well-known prefix (`64:ff9b::/96`).
    pub fn new(ip: IpAddr) -> Self {
        Self::with_ipv6_prefix(ip, Self::DEFAULT_IPV6_PREFIX)
    }

    /// Returns the key of this address, with a prefix of this many bits if it is IPv6. More than
    /// 128 count as 128.
    ///
    /// Providers hand out anything from a /64 to a /48. A shorter prefix groups strangers; a longer
    /// one gives each client many keys.
    pub fn with_ipv6_prefix(ip: IpAddr, bits: u8) -> Self {
        match canonical(ip) {
            network @ IpAddr::V4(_) => Self { network, prefix: 32 },
            IpAddr::V6(ip) => {
                let prefix = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { network: Ipv6Addr::from_bits(ip.to_bits() & mask).into(), prefix }
            }
        }
    }

    /// Returns the network of an IPv4 address: its first `bits` bits. `None` for IPv6.
    pub fn ipv4_network(&self, bits: u8) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.network else { return None };
        let mask = u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(bits))).unwrap_or(0);
        Some(Ipv4Addr::from_bits(ip.to_bits() & mask))
    }

    /// Returns the network of an IPv6 address: its first `bits` bits, which are those of a larger
    /// network if `bits` is less than the key has. `None` for IPv4. A key for [limits within
    /// limits](crate::rate_limit::KeyedRateLimiter#limits-within-limits).
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
        let IpAddr::V6(ip) = self.network else { return None };
        let mask = u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(bits))).unwrap_or(0);
        Some(Ipv6Addr::from_bits(ip.to_bits() & mask))
    }
}

/// Returns the IPv4 address that an IPv6 address stands for, if it does.
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if ip.to_bits() >> 32 == WELL_KNOWN_PREFIX => Ipv4Addr::from_bits(ip.to_bits() as u32).into(),
        ip => ip,
    }
}

/// `64:ff9b::/96`, under which translators (NAT64) embed IPv4 addresses (RFC 6052).
const WELL_KNOWN_PREFIX: u128 = 0x0064_ff9b << 64;

impl fmt::Display for IpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/{}", self.prefix),
        }
    }
}
