//! What is known about HTTP and gRPC, for clients and servers (feature `http`).

#[macro_use]
mod access;
mod classify;
mod client_ip;
mod deadline;
mod drain;
mod grpc;
mod head;
mod hint;
mod hold_off;
mod idempotency;
mod repeat;
mod replay;
mod respond;
mod transport;
pub mod whole;

pub use classify::{Adjust, ByStatus, HttpClassifier};
pub use client_ip::{ByPeerAddr, ClientIp, ForwardedIn, IpKey, Peer, PeerAddr};
pub use deadline::{DeadlineHeader, DeadlineReceive, DeadlineReceiveLayer, DeadlineSend, DeadlineSendLayer};
pub use drain::{Drain, DrainBody, DrainLayer};
pub use grpc::GrpcClassifier;
pub use head::{RequestHead, ResponseHead};
pub use hint::{rate_limit_reset, retry_after};
pub use hold_off::{HoldOff, HoldOffLayer};
pub use idempotency::{IdempotencyKey, IdempotencyKeyLayer};
pub use repeat::{ByMethod, HttpRepeat, Idempotent};
pub use replay::{Replay, ReplayBody, ReplayError, ReplayLayer};
pub use respond::{Responses, grpc_response};
pub use transport::{TransportError, was_sent};

/// Futures of the services in this module.
pub mod future {
    pub use super::{deadline::DeadlineFuture, drain::DrainFuture, hold_off::HoldOffFuture};
}
