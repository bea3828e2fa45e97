//! Calls that borrow the state they share.
//!
//! A call's future must own the state that it reports to, and owning it costs two
//! read-modify-writes on a reference count. A stack of five layers that each own theirs pays five
//! times. So a pattern's part of a call owns nothing: the owner of the call passes the shared state
//! `P` to every step. The owner of a single layer's call is its response future, with one
//! [`StripedRef`]; the owner of a ready-made stack's call is the stack's future, with one reference
//! for all of its parts. Each pattern is written once for both.
//!
//! The price: a dropped call cannot release its state in a destructor. Its owner calls
//! [`cancel`](Cancel::cancel), which [`WithShared`] does.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{deadline::NEVER, shared::striped::StripedRef};

/// A call that may be dropped before it completes.
pub(crate) trait Cancel<P: ?Sized> {
    /// Cancels the call: drops the inner call first, then releases what this one holds. Does
    /// nothing for a call that has completed.
    fn cancel(self: Pin<&mut Self>, shared: &P);
}

/// A [`Future`] that borrows `P` for each poll.
pub(crate) trait CallFuture<P: ?Sized>: Cancel<P> {
    type Output;

    /// Polls the call. `polled` is pending before, and receives the output.
    //
    // Not returned: results are large, and each layer that inspects one would move it.
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>);

    /// The time at which a timer that lives as long as this call wakes the task, as of the last
    /// pending poll, or [`NEVER`]. An outer call with nothing to do before then needs no timer of
    /// its own.
    #[inline(always)]
    fn wakes_at(&self) -> u64 {
        NEVER
    }
}

/// A [`Service`] that borrows `P` for each step.
pub(crate) trait CallService<P: ?Sized, Req> {
    type Response;
    type Error;
    type Call: CallFuture<P, Output = Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    fn call(&mut self, shared: &P, request: Req) -> Self::Call;
}

/// An owner of shared state.
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

/// The owner of a call that does not outlive its handle.
impl<T> HasShared for &T {
    type Shared = T;

    #[inline(always)]
    fn shared(&self) -> &T {
        self
    }
}

/// For a call that reports to its handle only when there is an observer: without one it holds no
/// reference.
impl<T> HasShared for Option<StripedRef<T>> {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

pin_project! {
    /// A call together with the owner of its shared state: a future.
    pub(crate) struct WithShared<O, C>
    where
        O: HasShared,
        C: Cancel<O::Shared>,
    {
        #[pin]
        call: C,
        // `None` once the call has completed.
        owner: Option<O>,
    }

    impl<O, C> PinnedDrop for WithShared<O, C>
    where
        O: HasShared,
        C: Cancel<O::Shared>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(owner) = this.owner {
                this.call.cancel(owner.shared());
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
        Self { call, owner: Some(owner) }
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
        let Some(owner) = this.owner else { panic!("polled after it completed") };
        let mut polled = Poll::Pending;
        this.call.poll(owner.shared(), cx, &mut polled);
        if polled.is_pending() {
            return Poll::Pending;
        }
        *this.owner = None;
        polled
    }
}

/// Defines a named, opaque response future around a call.
macro_rules! response_future {
    (
        $(#[$doc:meta])*
        pub struct $name:ident<$($param:ident),+> $(where [$($bound:tt)+])? = $inner:ty;
        impl<$($free:ident),*> where [$($needs:tt)+] -> $output:ty;
    ) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            #[allow(clippy::type_complexity)] // its parts, spelled out once
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
