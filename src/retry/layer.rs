use std::fmt;

use tower_layer::Layer;

use super::{Retry, RetryService};
use crate::{
    classify::{ClassifyFn, DefaultClassifier, Verdict},
    error::AsRejection,
    request::{CloneWith, Cloned, IdempotentIf, PrepareWith},
};

/// Puts a [`Retry`] around a service.
///
/// `C` judges results, `Q` knows how to repeat a request.
#[derive(Clone)]
pub struct RetryLayer<C = DefaultClassifier, Q = Cloned> {
    retry: Retry,
    classify: C,
    repeat: Q,
}

impl RetryLayer {
    /// Judges by [`DefaultClassifier`] and clones requests.
    pub fn new(retry: &Retry) -> Self {
        Self { retry: retry.clone(), classify: DefaultClassifier, repeat: Cloned }
    }
}

impl<C, Q> RetryLayer<C, Q> {
    /// Judges results by `classify`. A bare closure will do, but cannot tell a rejection from a failure: see
    /// [`classify_with`](Self::classify_with).
    pub fn classify<D>(self, classify: D) -> RetryLayer<D, Q> {
        RetryLayer { retry: self.retry, classify, repeat: self.repeat }
    }

    /// Judges results by a closure. Rejections by layers within are still treated as what they are: a call that timed
    /// out is repeated only if it is idempotent, an open circuit is not insisted on.
    pub fn classify_with<F, T, E>(self, verdict: F) -> RetryLayer<ClassifyFn<F>, Q>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
        E: AsRejection,
    {
        self.classify(ClassifyFn::new(verdict))
    }

    /// Repeats requests by `repeat`.
    pub fn repeat<R>(self, repeat: R) -> RetryLayer<C, R> {
        RetryLayer { retry: self.retry, classify: self.classify, repeat }
    }

    /// Copies requests by a closure, for those whose clone may fail, such as reqwest's (`Request::try_clone`). A
    /// request that cannot be copied is sent once.
    pub fn clone_with<F, Req>(self, clone: F) -> RetryLayer<C, CloneWith<F>>
    where
        F: Fn(&Req) -> Option<Req>,
    {
        self.repeat(CloneWith::new(clone))
    }

    /// Asks the request whether it may be repeated after a timeout, when it may have been done already.
    pub fn idempotent_if<F, Req>(self, idempotent: F) -> RetryLayer<C, IdempotentIf<Q, F>>
    where
        F: Fn(&Req) -> bool,
    {
        RetryLayer { retry: self.retry, classify: self.classify, repeat: IdempotentIf::new(self.repeat, idempotent) }
    }

    /// Changes the request for each further attempt. The closure is given the attempt's number, 2 for the first retry.
    pub fn prepare_with<F, Req>(self, prepare: F) -> RetryLayer<C, PrepareWith<Q, F>>
    where
        F: Fn(u32, &mut Req),
    {
        RetryLayer { retry: self.retry, classify: self.classify, repeat: PrepareWith::new(self.repeat, prepare) }
    }
}

impl<C, Q> fmt::Debug for RetryLayer<C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<S, C, Q> Layer<S> for RetryLayer<C, Q>
where
    S: Clone,
    C: Clone,
    Q: Clone,
{
    type Service = RetryService<S, C, Q>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService::with(inner, &self.retry, self.classify.clone(), self.repeat.clone())
    }
}
