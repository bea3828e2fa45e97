use std::future::Future;

use super::inner::{KeyedInner, SpentToken};
use crate::{
    call::{Guarded, LeafCall, Rejectable, WithShared, response_future},
    error::Rejection,
    shared::striped::StripedRef,
};

response_future! {
    /// A call that is admitted or rejected.
    ///
    /// The token that it consumed stays spent, however it ends.
    pub struct KeyedResponseFuture<F> =
        Rejectable<WithShared<Option<StripedRef<KeyedInner>>, Guarded<LeafCall<F>, SpentToken>>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}
