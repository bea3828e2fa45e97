//! Parts that a stack may be built without.

use std::{
    ops::Deref,
    task::{Context, Poll},
};

use super::service::{CallFuture, CallService};

/// A part of a stack, which may have been left out.
///
/// A stack is built from the same types whether it has a part or not; only [`Optional`] knows which
/// parts were left out. It bypasses their patterns, so a pattern that is called can rely on its
/// part.
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

/// The call service of a pattern, around an inner one. A stack uses it through [`Optional`].
///
/// A call starts in two steps, so that a bypassed pattern and one that admits share the code of the
/// inner call: patterns nest, and two copies at each level would multiply.
pub(crate) trait PatternService<P: ?Sized, Req> {
    type Response;
    type Error;
    type Call: CallFuture<P, Output = Result<Self::Response, Self::Error>>;
    /// The pattern's decision about a call.
    type Admission;

    /// [`CallService::poll_ready`]; not `enabled`, that of the inner service.
    fn poll_ready(&mut self, enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Asks the pattern for admission of a call.
    fn admit(&mut self, shared: &P) -> Self::Admission;

    /// The admission of a call that bypasses the pattern.
    fn bypass() -> Self::Admission;

    /// Starts the call, as admitted.
    fn start(&mut self, shared: &P, admission: Self::Admission, request: Req) -> Self::Call;
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
    W: PatternService<P, Req>,
{
    type Response = W::Response;
    type Error = W::Error;
    type Call = W::Call;

    #[inline(always)]
    fn poll_ready(&mut self, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), W::Error>> {
        self.service.poll_ready(self.enabled, shared, cx)
    }

    #[inline(always)]
    fn call(&mut self, shared: &P, request: Req) -> W::Call {
        let admission = if self.enabled { self.service.admit(shared) } else { W::bypass() };
        self.service.start(shared, admission, request)
    }
}
