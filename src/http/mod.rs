//! HTTP and gRPC for the patterns, in clients and servers (feature `http`).
//!
//! The patterns handle calls, results and rejections. This module maps those to HTTP:
//!
//! | for | use |
//! |---|---|
//! | classifying responses | [`HttpClassifier`], [`GrpcClassifier`] |
//! | a service's request to wait | [`retry_after`], [`rate_limit_reset`]; the classifiers pass it to the retry |
//! | opening a circuit when the service asks for it | [`HonorRetryAfterLayer`] |
//! | attributing errors to the caller, the network or the service | [`ErrorOrigin`], [`TransportError`], [`CallerBodyLayer`] |
//! | deciding which requests may be sent again | [`HttpRepeat`], [`IdempotencyKeyLayer`] |
//! | retrying requests with streaming bodies | [`ReplayLayer`] |
//! | reusing the connections of failed responses | [`DrainLayer`] |
//! | covering a response's body | [`full_response`] |
//! | slow uploads | [`UploadTimeoutLayer`] |
//! | one breaker per host | [`Destination`], [`per_key`](crate::per_key) |
//! | propagating deadlines from hop to hop | [`DeadlineHeader`] |
//! | treating a client's own timeouts like a [`Timeout`](crate::timeout) | [`AdaptClientErrorLayer`] |
//! | turning rejections into responses | [`Responses`], [`grpc_response`] |
//! | limits per client | [`ClientIp`] |
//!
//! # Clients and servers
//!
//! Each has a guide: wrapping [hyper](guide::hyper_client), [reqwest](guide::reqwest_client) and
//! [tonic](guide::tonic_client) clients; protecting [axum](guide::axum_server),
//! [hyper](guide::hyper_server) and [tonic](guide::tonic_server) servers.
//!
//! # Layer order in a client
//!
//! ```text
//! IdempotencyKeyLayer -> ReplayLayer -> total timeout -> retry -> DrainLayer -> breaker -> HonorRetryAfterLayer -> bulkhead
//!     -> attempt timeout -> DeadlineHeader::send -> AdaptClientErrorLayer -> client
//! ```
//!
//! Where requests stream, [`UploadTimeoutLayer`] takes the place of the attempt timeout.
//!
//! Layers outside the retry hold state that all attempts share: the idempotency key and the
//! recorded body. Layers inside it act on each attempt. A layer that follows redirects goes
//! outermost, so that each exchange is a call of its own ([why](HttpClassifier#redirects)).
//!
//! # Features
//!
//! `http` uses types of the crates `http`, `http-body` and `bytes`, and works with any client or
//! server built on them. `h2`, `hyper`, `hyper-util`, `reqwest` and `tonic` add support that needs
//! those crates' own types, above all for the [origin of errors](ErrorOrigin): they tell the
//! caller's faults from the service's, and a request that the server certainly has not processed
//! from one that it may have processed. A client that speaks HTTP/2 needs `h2`.

mod adapt;
mod boxed;
#[macro_use]
mod caller;
mod classify;
mod client_ip;
mod deadline;
mod destination;
mod drain;
pub mod full_response;
mod grpc;
pub mod guide;
mod head;
mod hint;
mod honor_retry_after;
mod idempotency;
mod origin;
mod repeat;
mod replay;
mod respond;
mod saved;
mod transport;
mod upload;

use adapt::CLIENT;
pub use adapt::{AdaptClientError, AdaptClientErrorLayer};
pub use caller::{CallerBody, CallerBodyLayer, CallerError, MarkCallerBody};
pub use classify::{Adjust, ByStatus, HttpClassifier};
pub use client_ip::{ByPeerAddr, ClientIp, ForwardedIn, IpKey, Peer, PeerAddr};
pub use deadline::{DeadlineHeader, DeadlineReceive, DeadlineReceiveLayer, DeadlineSend, DeadlineSendLayer};
pub use destination::Destination;
pub use drain::{Drain, DrainBody, DrainLayer};
pub use grpc::GrpcClassifier;
pub use head::{RequestHead, ResponseHead};
pub use hint::{rate_limit_reset, retry_after};
pub use honor_retry_after::{HonorRetryAfter, HonorRetryAfterLayer};
pub use idempotency::{IdempotencyKey, IdempotencyKeyLayer};
pub use origin::{ErrorOrigin, error_origin};
pub use repeat::{ByMethod, HttpRepeat, Idempotent};
pub use replay::{Replay, ReplayBody, ReplayError, ReplayLayer};
pub use respond::{Customize, HttpResponder, RespondToMethod, Responses, Unchanged, grpc_response};
pub use saved::SavedRequest;
pub use transport::TransportError;
pub use upload::{UploadBody, UploadError, UploadTimeout, UploadTimeoutLayer};

/// Futures of the services in this module.
pub mod future {
    pub use super::{
        adapt::AdaptClientFuture,
        deadline::{DeadlineFuture, DeadlineSendFuture},
        drain::DrainFuture,
        honor_retry_after::HonorRetryAfterFuture,
        upload::UploadTimeoutFuture,
    };
}
