//! Calls that are lent what they share.
//!
//! The future of a call must own the state that it reports to, and to own it costs two read-modify-writes. A stack of
//! five layers that each own theirs pays five times. So a pattern's part of a call owns nothing: whoever owns the call
//! lends it the shared state at each step. Standalone, the owner is the layer's response future, with a [`StripedRef`] of the one
//! handle. In a ready-made stack it is the stack's future, with one hold for all shared. The patterns are written once.
//!
//! The price is that a dropped call cannot clean up behind itself in a destructor: its owner must call
//! [`cancel`](Cancel::cancel), which [`WithShared`] does.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::shared::striped::StripedRef;

/// A call that can be dropped before it ended.
pub(crate) trait Cancel<P: ?Sized> {
    /// The call is dropped: drops what is inside, and then gives back what it kept. Does nothing for a call that ended.
    fn cancel(self: Pin<&mut Self>, shared: &P);
}

/// A call in progress. As [`Future`], but lent `P`.
pub(crate) trait CallFuture<P: ?Sized>: Cancel<P> {
    type Output;

    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output>;

    /// When the last poll, which was pending, has had the task woken by a timer that stays with this call: whoever is
    /// around and has nothing to do before then needs no timer of its own.
    #[inline(always)]
    fn wakes_at(&self) -> Option<Instant> {
        None
    }
}

/// What begins calls. As [`Service`], but lent `P`.
pub(crate) trait CallService<P: ?Sized, Req> {
    type Response;
    type Error;
    type Call: CallFuture<P, Output = Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    fn call(&mut self, shared: &P, request: Req) -> Self::Call;
}

pin_project! {
    /// The innermost: a service or a future that needs nothing lent.
    #[derive(Clone, Debug)]
    pub(crate) struct Leaf<T> {
        #[pin]
        pub(crate) inner: T,
    }
}

impl<T> Leaf<T> {
    #[inline(always)]
    pub(crate) fn new(inner: T) -> Self {
        Self { inner }
    }
}

impl<P: ?Sized, F> Cancel<P> for Leaf<F> {
    #[inline]
    fn cancel(self: Pin<&mut Self>, _parts: &P) {}
}

impl<P: ?Sized, F: Future> CallFuture<P> for Leaf<F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, _parts: &P, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

impl<P: ?Sized, S: Service<Req>, Req> CallService<P, Req> for Leaf<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Call = Leaf<S::Future>;

    #[inline(always)]
    fn poll_ready(&mut self, _parts: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, _parts: &P, request: Req) -> Self::Call {
        Leaf::new(self.inner.call(request))
    }
}

/// What an owner has to lend.
pub(crate) trait HasShared {
    type Shared: ?Sized;

    fn shared(&self) -> &Self::Shared;
}

impl<T> HasShared for StripedRef<T> {
    type Shared = T;

    #[inline(always)]
    fn shared(&self) -> &T {
        self
    }
}

/// For a call that was refused, or that nobody listens to: there is nothing to own.
impl<T> HasShared for Option<StripedRef<T>> {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

pin_project! {
    /// A call with the owner of what it shares: a future.
    pub(crate) struct WithShared<O, C>
    where
        O: HasShared,
        C: Cancel<O::Shared>,
    {
        #[pin]
        call: C,
        owner: O,
        ended: bool,
    }

    impl<O, C> PinnedDrop for WithShared<O, C>
    where
        O: HasShared,
        C: Cancel<O::Shared>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.ended {
                this.call.cancel(this.owner.shared());
            }
        }
    }
}

impl<O, C> WithShared<O, C>
where
    O: HasShared,
    C: Cancel<O::Shared>,
{
    #[inline(always)]
    pub(crate) fn new(owner: O, call: C) -> Self {
        Self { call, owner, ended: false }
    }
}

impl<O, C> Future for WithShared<O, C>
where
    O: HasShared,
    C: CallFuture<O::Shared>,
{
    type Output = C::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        let polled = this.call.poll(this.owner.shared(), cx);
        *this.ended = polled.is_ready();
        polled
    }
}

/// A named, opaque future around an [`WithShared`] call, and what it needs to be one.
macro_rules! response_future {
    (
        $(#[$doc:meta])*
        pub struct $name:ident<$($param:ident),+> $(where [$($bound:tt)+])? = $inner:ty;
        impl<$($free:ident),*> where [$($needs:tt)+] -> $output:ty;
    ) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            #[allow(clippy::type_complexity)] // what it is made of, spelled out this once
            pub struct $name<$($param),+> $(where $($bound)+)? {
                #[pin]
                inner: $inner,
            }
        }

        impl<$($param),+> $name<$($param),+> $(where $($bound)+)? {
            #[allow(clippy::type_complexity)]
            #[inline(always)]
            pub(super) fn new(inner: $inner) -> Self {
                Self { inner }
            }
        }

        impl<$($param,)+ $($free),*> std::future::Future for $name<$($param),+>
        where
            $($needs)+
        {
            type Output = $output;

            #[inline]
            fn poll(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                self.project().inner.poll(cx)
            }
        }

        impl<$($param),+> std::fmt::Debug for $name<$($param),+> $(where $($bound)+)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use response_future;
