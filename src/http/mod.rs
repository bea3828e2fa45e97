//! What is known about HTTP and gRPC, for clients and servers (feature `http`).
//!
//! The patterns know calls, results and rejections. This module knows what they are in HTTP:
//!
//! | for | there is |
//! |---|---|
//! | how a response counts | [`HttpClassifier`], [`GrpcClassifier`] |
//! | how long a server asks to wait | [`retry_after`], [`rate_limit_reset`]; the classifiers tell the retry |
//! | a circuit that opens when a server asks for it | [`HonorRetryAfterLayer`] |
//! | what may be sent again | [`HttpRepeat`], [`IdempotencyKeyLayer`], [`TransportError`] |
//! | request bodies that stream | [`ReplayLayer`] |
//! | bodies of failed responses | [`DrainLayer`] |
//! | layers that cover the response's body | [`full_response`] |
//! | a breaker for each host | [`per_key`](crate::per_key) |
//! | deadlines from hop to hop | [`DeadlineHeader`] |
//! | a server's responses to rejections | [`Responses`], [`grpc_response`] |
//! | limits by client | [`ClientIp`] |
//!
//! # Clients and servers
//!
//! Each has a page: wrapping [hyper](guide::hyper_client), [reqwest](guide::reqwest_client) and
//! [tonic](guide::tonic_client); protecting servers of [axum](guide::axum_server), [hyper](guide::hyper_server) and
//! [tonic](guide::tonic_server).
//!
//! # Order, for a client
//!
//! ```text
//! IdempotencyKeyLayer -> ReplayLayer -> total timeout -> retry -> DrainLayer -> breaker -> HonorRetryAfterLayer -> bulkhead
//!     -> attempt timeout -> DeadlineHeader::send -> AdaptErrorLayer -> client
//! ```
//!
//! Outside of the retry is what must be the same for all attempts, the key and the record of the body; inside is what
//! each attempt has of its own.
//!
//! # Features
//!
//! `http` brings types of the crates `http`, `http-body` and `bytes`, and works with any client and server of those.
//! `h2`, `hyper-util`, `reqwest` and `tonic` add what needs a type of these: above all, to tell what a server surely has not
//! seen to from what it may have done.

mod classify;
mod client_ip;
mod deadline;
mod drain;
pub mod full_response;
mod grpc;
pub mod guide;
mod head;
mod hint;
mod honor_retry_after;
mod idempotency;
mod repeat;
mod replay;
mod respond;
mod transport;

pub use classify::{Adjust, ByStatus, HttpClassifier};
pub use client_ip::{ByPeerAddr, ClientIp, ForwardedIn, IpKey, Peer, PeerAddr};
pub use deadline::{DeadlineHeader, DeadlineReceive, DeadlineReceiveLayer, DeadlineSend, DeadlineSendLayer};
pub use drain::{Drain, DrainBody, DrainLayer};
pub use grpc::GrpcClassifier;
pub use head::{RequestHead, ResponseHead};
pub use hint::{rate_limit_reset, retry_after};
pub use honor_retry_after::{HonorRetryAfter, HonorRetryAfterLayer};
pub use idempotency::{IdempotencyKey, IdempotencyKeyLayer};
pub use repeat::{ByMethod, HttpRepeat, Idempotent};
pub use replay::{Replay, ReplayBody, ReplayError, ReplayLayer};
pub use respond::{Responses, grpc_response};
pub use transport::{TransportError, was_attempted};

/// Futures of the services in this module.
pub mod future {
    pub use super::{deadline::DeadlineFuture, drain::DrainFuture, honor_retry_after::HonorRetryAfterFuture};
}
