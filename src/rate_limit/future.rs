//! Futures of [`RateLimitService`](super::RateLimitService).

use std::future::Future;

use tower_service::Service;

use super::inner::{RateLimiterInner, SpentTokens, WaitForTokens};
use crate::{
    call::{Guarded, Queued},
    call::{Leaf, WithShared, response_future},
    error::Rejection,
    shared::striped::StripedRef,
};

response_future! {
    /// A call that was let in, or refused.
    ///
    /// Its tokens are spent, however it ends.
    pub struct ResponseFuture<F> =
        WithShared<Option<StripedRef<RateLimiterInner>>, Guarded<Leaf<F>, SpentTokens>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its tokens first, if it has to.
    ///
    /// Dropping it while it waits gives the tokens back; the request was never sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] =
        WithShared<Option<StripedRef<RateLimiterInner>>, Queued<Leaf<S>, Req, WaitForTokens<StripedRef<RateLimiterInner>>, Leaf<S::Future>, SpentTokens>>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
