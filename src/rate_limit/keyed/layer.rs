use std::{
    fmt,
    hash::Hash,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{KeyedRateLimiter, handle::Inner};
use crate::{
    classify::{Classify, ResultClassifier},
    error::Rejection,
    event::EventKind,
    guarded::{Guard, Guarded, guarded_future},
    hold::Hold,
};

/// What happens to a request that has no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WithoutKey {
    /// All requests without a key share one limiter, as if that were their key. So leaving the key away is no way around
    /// the limit, and nobody is refused for a key that an outage of its source took away.
    #[default]
    Share,
    /// It passes, unlimited.
    Pass,
    /// It is refused, for good.
    Refuse,
}

/// Puts a [`KeyedRateLimiter`] around a service. It refuses what exceeds a key's rate.
///
/// `F` is a function from the request to its key.
pub struct KeyedRateLimitLayer<K: ?Sized, F> {
    limiter: KeyedRateLimiter<K>,
    key: F,
    without: WithoutKey,
}

impl<K: Hash + ?Sized> KeyedRateLimiter<K> {
    /// The layer that limits a service's calls by the key that `key` finds in the request.
    pub fn layer<F, Req, Q>(&self, key: F) -> KeyedRateLimitLayer<K, F>
    where
        F: Fn(&Req) -> Option<Q>,
        Q: std::borrow::Borrow<K>,
    {
        KeyedRateLimitLayer { limiter: self.clone(), key, without: WithoutKey::default() }
    }
}

impl<K: ?Sized, F> KeyedRateLimitLayer<K, F> {
    /// What happens to a request that has no key.
    pub fn without_key(mut self, then: WithoutKey) -> Self {
        self.without = then;
        self
    }
}

impl<S, K: ?Sized, F: Clone> Layer<S> for KeyedRateLimitLayer<K, F> {
    type Service = KeyedRateLimitService<S, K, F>;

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

impl<K: ?Sized, F: Clone> Clone for KeyedRateLimitLayer<K, F> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), key: self.key.clone(), without: self.without }
    }
}

impl<K: ?Sized, F> fmt::Debug for KeyedRateLimitLayer<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitLayer")
            .field("limiter", &self.limiter)
            .field("without_key", &self.without)
            .finish_non_exhaustive()
    }
}

/// Service made by [`KeyedRateLimitLayer`].
pub struct KeyedRateLimitService<S, K: ?Sized, F> {
    inner: S,
    limiter: KeyedRateLimiter<K>,
    key: F,
    without: WithoutKey,
    request: PhantomData<fn(&K)>,
}

impl<S, K: ?Sized, F> KeyedRateLimitService<S, K, F> {
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

impl<S: Clone, K: ?Sized, F: Clone> Clone for KeyedRateLimitService<S, K, F> {
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

impl<S: fmt::Debug, K: ?Sized, F> fmt::Debug for KeyedRateLimitService<S, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitService")
            .field("inner", &self.inner)
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

impl<S, K, F, Q, Req> Service<Req> for KeyedRateLimitService<S, K, F>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
    K: Hash + ?Sized,
    F: Fn(&Req) -> Option<Q>,
    Q: std::borrow::Borrow<K>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = KeyedResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // The hash of the key, 1 RMW and one clock read; a refusal, no RMW. Nothing is held without an observer.
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = &self.limiter.shared;
        let verdict = match ((self.key)(&request), self.without) {
            (Some(key), _) => self.limiter.take(key.borrow()),
            (None, WithoutKey::Share) => shared.take_without_key(),
            (None, WithoutKey::Pass) => Ok(()),
            (None, WithoutKey::Refuse) => Err(shared.refuse()),
        };
        let inner = match verdict {
            Ok(()) => {
                let guard = Call(shared.tell.is_on().then(|| shared.hold()));
                shared.tell.event(|| EventKind::Admitted);
                Guarded::Calling { future: self.inner.call(request), guard }
            }
            Err(rejection) => Guarded::refused(rejection),
        };
        KeyedResponseFuture::new(inner)
    }
}

/// A call that was let in, for those who listen.
pub(super) struct Call(Option<Hold<Inner>>);

impl<T, E> Guard<T, E> for Call {
    fn end(&mut self, result: Result<&T, &E>) {
        if let Some(inner) = self.0.take() {
            let verdict = ResultClassifier.classify(result);
            inner.tell.event(|| EventKind::Completed { verdict, elapsed: None });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            inner.tell.event(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

guarded_future! {
    /// Future of [`KeyedRateLimitService`].
    KeyedResponseFuture under Call
}
