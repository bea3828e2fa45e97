use std::sync::{Mutex, PoisonError};

use super::{
    Retry,
    inner::RetryInner,
    retry_call::{AttemptSource, HasRetry},
};
use crate::call::Leaf;

/// The state that the calls of a retry service and its clones share. It saves each call a clone of
/// the classifier and of the service, whose layers have counters that all threads share.
pub(super) struct CallSite<S, C, Q> {
    pub(super) retry: Retry,
    classify: C,
    repeat: Q,
    /// The service that further attempts are made on. Locked to clone it, by a retry that is about
    /// to wait anyway.
    template: Mutex<S>,
}

impl<S, C, Q> CallSite<S, C, Q> {
    pub(super) fn new(retry: Retry, classify: C, repeat: Q, template: S) -> Self {
        Self { retry, classify, repeat, template: Mutex::new(template) }
    }
}

impl<S: Clone, C, Q> AttemptSource<Leaf<S>> for CallSite<S, C, Q> {
    fn service(&self) -> Leaf<S> {
        Leaf::new(self.template.lock().unwrap_or_else(PoisonError::into_inner).clone())
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
