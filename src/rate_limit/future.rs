//! Futures of [`RateLimitService`](super::RateLimitService) and
//! [`KeyedRateLimitService`](super::KeyedRateLimitService).

use std::future::Future;

use tower_service::Service;

use super::inner::{RateLimiterInner, SpentTokens, WaitForTokens};
pub use super::keyed::KeyedResponseFuture;
use crate::{
    call::{Guarded, LeafCall, Queued, Rejectable, RejectableLeaf, RejectableLeafCall, WithShared, response_future},
    error::Rejection,
    shared::striped::StripedRef,
};

response_future! {
    /// A call that is admitted or rejected.
    ///
    /// The tokens that it consumed stay spent, however it ends.
    pub struct ResponseFuture<F> =
        Rejectable<WithShared<Option<StripedRef<RateLimiterInner>>, Guarded<LeafCall<F>, SpentTokens>>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its tokens if they are not available.
    ///
    /// Dropping it while it waits leaves the queue; no tokens are spent, and the request was not
    /// sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] = Rejectable<WithShared<
        Option<StripedRef<RateLimiterInner>>,
        Queued<RejectableLeaf<S>, Req, WaitForTokens<StripedRef<RateLimiterInner>>, RejectableLeafCall<S::Future>, SpentTokens>,
    >>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
