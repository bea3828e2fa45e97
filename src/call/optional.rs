//! Parts that a stack may be built without.

use std::{
    ops::Deref,
    task::{Context, Poll},
};

use super::service::CallService;

/// A part of a stack, which may have been left out.
///
/// A stack is built from the same types whether it has a part or not; only [`Optional`] knows which parts were left out.
/// It bypasses their patterns, so a pattern that is called can rely on its part.
#[derive(Clone, Debug)]
pub(crate) struct Part<T>(Option<T>);

impl<T> Part<T> {
    pub(crate) fn new(part: Option<T>) -> Self {
        Self(part)
    }

    pub(crate) fn as_option(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("`Optional` bypasses a part that was left out")
    }
}

/// A pattern's call service that can be bypassed.
pub(crate) trait Bypass<P: ?Sized, Req>: CallService<P, Req> {
    /// [`CallService::poll_ready`] without the pattern.
    fn bypass_ready(&mut self, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// [`CallService::call`] without the pattern.
    fn bypass(&mut self, shared: &P, request: Req) -> Self::Call;
}

/// A pattern's call service, bypassed if its part was left out of the stack.
#[derive(Clone)]
pub(crate) struct Optional<W> {
    service: W,
    enabled: bool,
}

impl<W> Optional<W> {
    pub(crate) fn new<T>(service: W, part: &Part<T>) -> Self {
        Self { service, enabled: part.as_option().is_some() }
    }
}

impl<P: ?Sized, W, Req> CallService<P, Req> for Optional<W>
where
    W: Bypass<P, Req>,
{
    type Response = W::Response;
    type Error = W::Error;
    type Call = W::Call;

    #[inline(always)]
    fn poll_ready(&mut self, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), W::Error>> {
        if self.enabled { self.service.poll_ready(shared, cx) } else { self.service.bypass_ready(shared, cx) }
    }

    #[inline(always)]
    fn call(&mut self, shared: &P, request: Req) -> W::Call {
        if self.enabled { self.service.call(shared, request) } else { self.service.bypass(shared, request) }
    }
}
