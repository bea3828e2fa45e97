//! Future of [`RetryService`](super::RetryService).

use tower_service::Service;

use super::{call_site::CallSite, retry_call::RetryCall};
use crate::{
    call::{Leaf, LeafCall, WithShared, response_future},
    classify::Classify,
    error::AsRejection,
    request::Repeat,
    shared::striped::StripedRef,
};

response_future! {
    /// A call and its retries.
    ///
    /// Dropping it cancels the running attempt, or the wait for the next one.
    ///
    /// A failed response is dropped before the delay, since it may hold a connection. The error of
    /// a failed attempt is kept until the next attempt is sent, and returned if that never happens
    /// because the service fails, or does not become ready in time. If the attempt failed with a
    /// response, there is no error to return: then the next attempt is made late, or the error of
    /// the service's `poll_ready` is returned.
    pub struct ResponseFuture<S, Req, C, Q> where [S: Service<Req>, Q: Repeat<Req>] =
        WithShared<StripedRef<CallSite<S, C, Q>>, RetryCall<LeafCall<S::Future>, Leaf<S>, Req, Q, S::Error>>;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: AsRejection,
        C: Classify<S::Response, S::Error>,
        Q: Repeat<Req>,
    ] -> Result<S::Response, S::Error>;
}
