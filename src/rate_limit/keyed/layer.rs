use std::{
    borrow::Borrow,
    fmt,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{KeyedRateLimiter, handle::KeyedInner};
use crate::{
    call::{CancelOnDrop, EventOnly, Guarded, HasEvents},
    call::{Leaf, WithShared, response_future},
    error::{FromRejection, Rejection},
    event::EventEmitter,
    shared::striped::StripedRef,
};

/// What happens to a request that has no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// All requests without a key share one limiter, as if that were their key. So leaving the key away is no way around
    /// the limit, and nobody is refused for a key that an outage of its source took away.
    #[default]
    Share,
    /// It passes, unlimited.
    Allow,
    /// It is refused, for good.
    Reject,
}

/// Puts a [`KeyedRateLimiter`] around a service. It refuses what exceeds a key's rate.
///
/// `F` is a function from the request to its key.
pub struct KeyedRateLimitLayer<K: ?Sized, F, H = RandomState> {
    limiter: KeyedRateLimiter<K, H>,
    key: F,
    without: MissingKey,
}

impl<K: ?Sized, H: Clone> KeyedRateLimiter<K, H> {
    /// The layer that limits a service's calls by the key that `key` finds in the request.
    pub fn layer<F, Req, Q>(&self, key: F) -> KeyedRateLimitLayer<K, F, H>
    where
        F: Fn(&Req) -> Option<Q>,
        Q: Borrow<K>,
    {
        KeyedRateLimitLayer { limiter: self.clone(), key, without: MissingKey::default() }
    }
}

impl<K: ?Sized, F, H> KeyedRateLimitLayer<K, F, H> {
    /// What happens to a request that has no key.
    pub fn missing_key(mut self, then: MissingKey) -> Self {
        self.without = then;
        self
    }
}

impl<S, K: ?Sized, F: Clone, H: Clone> Layer<S> for KeyedRateLimitLayer<K, F, H> {
    type Service = KeyedRateLimitService<S, K, F, H>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRateLimitService {
            inner,
            limiter: self.limiter.clone(),
            key: self.key.clone(),
            without: self.without,
            request: PhantomData,
        }
    }
}

impl<K: ?Sized, F: Clone, H: Clone> Clone for KeyedRateLimitLayer<K, F, H> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), key: self.key.clone(), without: self.without }
    }
}

impl<K: ?Sized, F, H> fmt::Debug for KeyedRateLimitLayer<K, F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitLayer")
            .field("limiter", &self.limiter)
            .field("missing_key", &self.without)
            .finish_non_exhaustive()
    }
}

/// Service made by [`KeyedRateLimitLayer`].
pub struct KeyedRateLimitService<S, K: ?Sized, F, H = RandomState> {
    inner: S,
    limiter: KeyedRateLimiter<K, H>,
    key: F,
    without: MissingKey,
    request: PhantomData<fn(&K)>,
}

impl<S, K: ?Sized, F, H> KeyedRateLimitService<S, K, F, H> {
    /// The limiter.
    pub fn limiter(&self) -> &KeyedRateLimiter<K, H> {
        &self.limiter
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, K: ?Sized, F: Clone, H: Clone> Clone for KeyedRateLimitService<S, K, F, H> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            limiter: self.limiter.clone(),
            key: self.key.clone(),
            without: self.without,
            request: PhantomData,
        }
    }
}

impl<S: fmt::Debug, K: ?Sized, F, H> fmt::Debug for KeyedRateLimitService<S, K, F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitService")
            .field("inner", &self.inner)
            .field("limiter", &self.limiter)
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

    // The hash of the key, 1 RMW and one clock read; a rejection, no RMW. Nothing is held without an observer.
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = &self.limiter.shared;
        let verdict = match ((self.key)(&request), self.without) {
            (Some(key), _) => self.limiter.take(key.borrow()),
            (None, MissingKey::Share) => shared.take_without_key(),
            (None, MissingKey::Allow) => Ok(()),
            (None, MissingKey::Reject) => Err(shared.reject()),
        };
        let (owner, call) = match verdict {
            Ok(()) => {
                let owner = shared.events.has_observer().then(|| shared.acquire_ref());
                let passed = SpentTokens::admitted(&shared.events);
                let held = CancelOnDrop::new(&owner, passed);
                let call = Guarded::started(Leaf::new(self.inner.call(request)), Some(held));
                (owner, call)
            }
            Err(rejection) => (None, Guarded::rejected(rejection)),
        };
        KeyedResponseFuture::new(WithShared::new(owner, call))
    }
}

/// A call that was let in. Nothing is to be released at its end.
pub(super) type SpentTokens = EventOnly<KeyedInner>;

impl HasEvents<KeyedInner> for KeyedInner {
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.events)
    }
}

impl HasEvents<KeyedInner> for Option<StripedRef<KeyedInner>> {
    fn events(&self) -> Option<&EventEmitter> {
        self.as_ref().map(|inner| &inner.events)
    }
}

response_future! {
    /// Future of [`KeyedRateLimitService`].
    pub struct KeyedResponseFuture<F> =
        WithShared<Option<StripedRef<KeyedInner>>, Guarded<Leaf<F>, SpentTokens>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}
