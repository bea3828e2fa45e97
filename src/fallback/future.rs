//! Future of [`FallbackService`](super::FallbackService).

use std::future::Future;

use super::{
    Serve, When,
    fallback_call::{FallbackCall, Kept},
    inner::FallbackInner,
};
use crate::{
    call::{LeafCall, WithShared, response_future},
    shared::striped::StripedRef,
};

response_future! {
    /// A call, and the fallback that may replace its result.
    ///
    /// Dropping it cancels whichever of the two is running. The fallback gives the call its result,
    /// so a panic of the fallback is a failure of the call, as one of the service is.
    pub struct ResponseFuture<F, Req, T, E, V, W> where [V: Serve<Req, T, E>] = WithShared<
        StripedRef<FallbackInner<V, W>>,
        FallbackCall<LeafCall<F>, Kept<V::Kept, Req>, V::Future>,
    >;
    impl<> where [
        F: Future<Output = Result<T, E>>,
        V: Serve<Req, T, E>,
        W: When<T, E>,
    ] -> Result<T, E>;
}
