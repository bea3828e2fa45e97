//! Future of [`RetryService`](super::RetryService).

use tower_service::Service;

use super::{call_site::CallSite, retry_call::RetryCall};
use crate::{
    call::{Leaf, WithShared, response_future},
    classify::Classify,
    request::Repeat,
    shared::striped::StripedRef,
};

response_future! {
    /// A call and its repetitions.
    ///
    /// Dropping it cancels the attempt that is running, or sends no further one.
    ///
    /// A failed response is dropped before the delay, since it may hold a connection. A failed attempt's error is kept
    /// until the next attempt is sent, and is the answer when that does not come to pass: because the service fails to
    /// become ready, or does not in time. Where there was a response and no error, the attempt is then made late, or
    /// the answer is the error that the service's readiness failed with.
    pub struct ResponseFuture<S, Req, C, Q> where [S: Service<Req>] =
        WithShared<StripedRef<CallSite<S, C, Q>>, RetryCall<Leaf<S::Future>, Leaf<S>, Req, S::Error>>;
    impl<> where [S: Service<Req> + Clone, C: Classify<S::Response, S::Error>, Q: Repeat<Req>]
        -> Result<S::Response, S::Error>;
}
