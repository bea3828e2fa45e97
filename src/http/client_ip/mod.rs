//! The address of a request's client: found behind proxies, and made into a key for limits.

mod address;
mod forwarded;
mod key;

pub use address::{ByPeerAddr, ClientIp, ForwardedIn, Peer, PeerAddr};
pub use key::IpKey;
