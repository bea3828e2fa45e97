//! Futures of the stacks' services.

use tower_service::Service;

use super::{
    client::ClientShared,
    layers::{ClientCall, ServerCall},
    parts::StackParts,
};
use crate::{
    call::{RejectableLeaf, RejectableLeafCall, WithShared, response_future},
    classify::Classify,
    error::{AsRejection, Rejection},
    request::Repeat,
    shared::striped::StripedRef,
};

response_future! {
    /// Future of [`ClientService`](super::ClientService).
    ///
    /// Dropping it cancels the running attempt, or the wait for the next one, and releases what the
    /// parts hold for it.
    pub struct ClientFuture<S, Req, C, Q> where [S: Service<Req>, Q: Repeat<Req>] = WithShared<
        StripedRef<ClientShared<S, C, Q>>,
        ClientCall<RejectableLeaf<S>, Req, Q, RejectableLeafCall<S::Future>, S::Error>,
    >;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: From<Rejection> + AsRejection,
        C: Classify<S::Response, S::Error>,
        Q: Repeat<Req>,
    ] -> Result<S::Response, S::Error>;
}

response_future! {
    /// Future of [`ServerService`](super::ServerService).
    ///
    /// Dropping it cancels the request and releases what the parts hold for it.
    pub struct ServerFuture<S, Req, C> where [S: Service<Req>] =
        WithShared<StripedRef<StackParts<C>>, ServerCall<RejectableLeaf<S>, Req, RejectableLeafCall<S::Future>>>;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: From<Rejection> + AsRejection,
        C: Classify<S::Response, S::Error>,
    ] -> Result<S::Response, S::Error>;
}
