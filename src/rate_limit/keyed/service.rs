use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    task::{Context, Poll},
};

use tower_service::Service;

use super::{KeyedRateLimitLayer, KeyedRateLimiter, KeyedResponseFuture, MissingKey, inner::SpentToken};
use crate::{
    call::{Guarded, LeafCall, Rejectable, StartingCall, WithShared},
    error::FromRejection,
};

/// The service of a [`KeyedRateLimitLayer`].
pub struct KeyedRateLimitService<S, K: ?Sized, F, H = RandomState> {
    inner: S,
    layer: KeyedRateLimitLayer<K, F, H>,
}

impl<S, K: ?Sized, F, H> KeyedRateLimitService<S, K, F, H> {
    pub(super) fn with(inner: S, layer: KeyedRateLimitLayer<K, F, H>) -> Self {
        Self { inner, layer }
    }

    /// Returns the limiter.
    pub fn limiter(&self) -> &KeyedRateLimiter<K, H> {
        &self.layer.limiter
    }
}

service_access!(KeyedRateLimitService<S, K: ?Sized, F, H>, inner);

impl<S: Clone, K: ?Sized, F: Clone, H: Clone> Clone for KeyedRateLimitService<S, K, F, H> {
    fn clone(&self) -> Self {
        Self::with(self.inner.clone(), self.layer.clone())
    }
}

impl<S: fmt::Debug, K: ?Sized, F, H> fmt::Debug for KeyedRateLimitService<S, K, F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitService")
            .field("inner", &self.inner)
            .field("limiter", self.limiter())
            .finish_non_exhaustive()
    }
}

impl<S, K, F, H, Q, Req> Service<Req> for KeyedRateLimitService<S, K, F, H>
where
    S: Service<Req>,
    S::Error: FromRejection,
    K: Hash + ?Sized,
    F: Fn(&Req) -> Option<Q>,
    Q: Borrow<K>,
    H: BuildHasher,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = KeyedResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // The hash of the key, 1 RMW and one clock read; a rejection, no RMW. Without an observer no
    // reference is held.
    fn call(&mut self, request: Req) -> Self::Future {
        let limiter = &self.layer.limiter;
        let arriving = limiter.shared.events.arriving();
        let key = (self.layer.key)(&request);
        arriving.arrived();
        let admission = match (key, self.layer.missing_key) {
            (Some(key), _) => limiter.take_owned(key),
            (None, MissingKey::Share) => limiter.shared.take_missing_key(),
            (None, MissingKey::Allow) => Ok(()),
            (None, MissingKey::Reject) => Err(limiter.shared.reject()),
        };
        if let Err(rejection) = admission {
            return KeyedResponseFuture::new(Rejectable::rejected(rejection));
        }
        let events = &limiter.shared.events;
        let owner = events.has_observer().then(|| limiter.shared.acquire_ref());
        let starting = StartingCall::new(&owner, Some(SpentToken::admitted(events)));
        let call = LeafCall::new(self.inner.call(request));
        let call = Guarded::started(call, starting.started());
        KeyedResponseFuture::new(Rejectable::started(WithShared::new(owner, call)))
    }
}
