//! The two futures that patterns share: a call under a guard, and a call that waits for its guard first.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::Rejection;

/// What a pattern keeps during a call. Dropping it before [`end`](Self::end) is the call's cancellation.
pub(crate) trait Guard<T, E> {
    /// The call ended: release now, however long the future's value is kept.
    fn end(&mut self, result: Result<&T, &E>);
}

pin_project! {
    /// A call that was let in, or refused.
    #[project = GuardedProj]
    pub(crate) enum Guarded<F, G> {
        Calling {
            #[pin]
            future: F,
            guard: G,
        },
        Refused {
            rejection: Option<Rejection>,
        },
    }
}

impl<F, G> Guarded<F, G> {
    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::Refused { rejection: Some(rejection) }
    }
}

impl<F, G, T, E> Future for Guarded<F, G>
where
    F: Future<Output = Result<T, E>>,
    G: Guard<T, E>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GuardedProj::Calling { future, guard } => {
                let result = ready!(future.poll(cx));
                guard.end(result.as_ref());
                Poll::Ready(result)
            }
            GuardedProj::Refused { rejection } => {
                Poll::Ready(Err(rejection.take().expect("polled after it ended").into()))
            }
        }
    }
}

pin_project! {
    /// A call that waits for its guard, in `A`, before it is made.
    #[project = DeferredProj]
    pub(crate) enum Deferred<S, Req, F, A, G> {
        Waiting {
            #[pin]
            acquire: A,
            service: S,
            request: Option<Req>,
        },
        Responding {
            #[pin]
            response: Guarded<F, G>,
        },
    }
}

impl<S, Req, A, G> Future for Deferred<S, Req, S::Future, A, G>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
    A: Future<Output = Result<G, Rejection>>,
    G: Guard<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let response = match self.as_mut().project() {
                DeferredProj::Responding { response } => return response.poll(cx),
                DeferredProj::Waiting { acquire, service, request } => match ready!(acquire.poll(cx)) {
                    Ok(guard) => {
                        let request = request.take().expect("polled after it ended");
                        Guarded::Calling { future: service.call(request), guard }
                    }
                    Err(rejection) => Guarded::refused(rejection),
                },
            };
            self.set(Self::Responding { response });
        }
    }
}

/// A named, opaque future around [`Guarded`].
macro_rules! guarded_future {
    ($(#[$doc:meta])* $name:ident under $guard:ty) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            pub struct $name<F> {
                #[pin]
                inner: $crate::guarded::Guarded<F, $guard>,
            }
        }

        impl<F> $name<F> {
            pub(super) fn new(inner: $crate::guarded::Guarded<F, $guard>) -> Self {
                Self { inner }
            }
        }

        impl<F, T, E> std::future::Future for $name<F>
        where
            F: std::future::Future<Output = Result<T, E>>,
            E: From<$crate::error::Rejection>,
        {
            type Output = Result<T, E>;

            fn poll(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                self.project().inner.poll(cx)
            }
        }

        impl<F> std::fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

/// A named, opaque future around [`Deferred`].
macro_rules! deferred_future {
    ($(#[$doc:meta])* $name:ident waits in $acquire:ty, under $guard:ty) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            pub struct $name<S, Req>
            where
                S: tower_service::Service<Req>,
            {
                #[pin]
                inner: $crate::guarded::Deferred<S, Req, S::Future, $acquire, $guard>,
            }
        }

        impl<S: tower_service::Service<Req>, Req> $name<S, Req> {
            pub(super) fn responding(response: $crate::guarded::Guarded<S::Future, $guard>) -> Self {
                Self { inner: $crate::guarded::Deferred::Responding { response } }
            }

            pub(super) fn waiting(service: S, request: Req, acquire: $acquire) -> Self {
                let request = Some(request);
                Self { inner: $crate::guarded::Deferred::Waiting { acquire, service, request } }
            }
        }

        impl<S, Req> std::future::Future for $name<S, Req>
        where
            S: tower_service::Service<Req>,
            S::Error: From<$crate::error::Rejection>,
        {
            type Output = Result<S::Response, S::Error>;

            fn poll(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                self.project().inner.poll(cx)
            }
        }

        impl<S: tower_service::Service<Req>, Req> std::fmt::Debug for $name<S, Req> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use {deferred_future, guarded_future};
