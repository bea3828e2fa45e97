use super::{
    Retry,
    inner::RetryInner,
    retry_call::{AttemptSource, HasRetry},
};
use crate::{call::Leaf, shared::template::Template};

/// The state that the calls of a retry service and its clones share. It saves each call a clone of
/// the classifier and of the service, whose layers have counters that all threads share.
pub(super) struct CallSite<S, C, Q> {
    pub(super) retry: Retry,
    classify: C,
    repeat: Q,
    /// The service that further attempts are made on.
    template: Template<S>,
}

impl<S, C, Q> CallSite<S, C, Q> {
    pub(super) fn new(retry: Retry, classify: C, repeat: Q, template: S) -> Self {
        Self { retry, classify, repeat, template: Template::new(template) }
    }
}

impl<S: Clone, C, Q> AttemptSource<Leaf<S>> for CallSite<S, C, Q> {
    fn service(&self) -> Option<Leaf<S>> {
        self.template.try_clone().map(Leaf::new)
    }
}

impl<S, C, Q> HasRetry for CallSite<S, C, Q> {
    type AttemptShared = ();
    type Classifier = C;
    type Repeat = Q;

    #[inline(always)]
    fn retry(&self) -> &RetryInner {
        &self.retry.0
    }

    fn attempt_shared(&self) -> &() {
        &()
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }

    #[inline(always)]
    fn repeat(&self) -> &Q {
        &self.repeat
    }
}
