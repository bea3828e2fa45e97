use crate::{
    call::{Part, RejectableLeaf},
    event::EventEmitter,
    retry::{AttemptSource, HasRetry, Retry, RetryInner},
    shared::template::Template,
    stack::{
        layers::Attempts,
        parts::{StackParts, Total},
    },
    timeout::{TimeoutInner, TimeoutOf},
};

/// The state that the calls of one client service share.
pub(crate) struct ClientShared<S, C, Q> {
    parts: StackParts<C>,
    retry: Part<Retry>,
    repeat: Q,
    /// The service that further attempts are made on.
    template: Template<Attempts<RejectableLeaf<S>>>,
}

impl<S, C, Q> ClientShared<S, C, Q> {
    pub(super) fn new(
        parts: StackParts<C>,
        retry: Part<Retry>,
        repeat: Q,
        template: Attempts<RejectableLeaf<S>>,
    ) -> Self {
        Self { parts, retry, repeat, template: Template::new(template) }
    }
}

impl<S, C, Q> HasRetry for ClientShared<S, C, Q> {
    type AttemptShared = StackParts<C>;
    type Classifier = C;
    type Repeat = Q;

    #[inline(always)]
    fn retry(&self) -> &RetryInner {
        &self.retry.0
    }

    #[inline(always)]
    fn attempt_shared(&self) -> &StackParts<C> {
        &self.parts
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.parts.classify
    }

    #[inline(always)]
    fn repeat(&self) -> &Q {
        &self.repeat
    }
}

impl<S: Clone, C, Q> AttemptSource<Attempts<RejectableLeaf<S>>> for ClientShared<S, C, Q> {
    fn service(&self) -> Option<Attempts<RejectableLeaf<S>>> {
        self.template.try_clone()
    }
}

impl<S, C, Q> TimeoutOf<Total> for ClientShared<S, C, Q> {
    #[inline(always)]
    fn timeout(&self) -> &TimeoutInner {
        TimeoutOf::<Total>::timeout(&self.parts)
    }

    #[inline(always)]
    fn timeout_events(&self) -> Option<&EventEmitter> {
        TimeoutOf::<Total>::timeout_events(&self.parts)
    }
}
