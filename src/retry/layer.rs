use std::fmt;

use tower_layer::Layer;

use super::{Retry, RetryService};
use crate::{
    classify::{Classify, DefaultClassifier, Verdict},
    request::{CloneWith, Cloned, IdempotentIf, PrepareWith},
};

/// A layer that retries a service's failed calls with a [`Retry`].
///
/// `C` classifies results, `Q` copies requests.
#[derive(Clone)]
pub struct RetryLayer<C = DefaultClassifier, Q = Cloned> {
    retry: Retry,
    classify: C,
    repeat: Q,
}

impl RetryLayer {
    /// Creates a layer that classifies results with [`DefaultClassifier`] and clones requests.
    pub fn new(retry: &Retry) -> Self {
        Self { retry: retry.clone(), classify: DefaultClassifier, repeat: Cloned }
    }
}

impl<C, Q> RetryLayer<C, Q> {
    /// Sets the classifier of results: a [`Classify`] implementation, or a closure that names the
    /// types of its argument. Rejections by inner layers keep their meaning: a call that timed out
    /// is retried only if it is idempotent, and a call that an open circuit rejected is not
    /// retried.
    pub fn classify<D>(self, classify: D) -> RetryLayer<D, Q> {
        RetryLayer { retry: self.retry, classify, repeat: self.repeat }
    }

    /// Sets a closure as the classifier of results. As [`classify`](Self::classify), but the
    /// compiler knows what kind of closure it is.
    pub fn classify_with<F, T, E>(self, classify: F) -> RetryLayer<F, Q>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
        F: Classify<T, E>,
    {
        self.classify(classify)
    }

    /// Sets how requests are copied, and when they may be sent again.
    pub fn repeat<R>(self, repeat: R) -> RetryLayer<C, R> {
        RetryLayer { retry: self.retry, classify: self.classify, repeat }
    }

    /// Copies requests with a closure, for requests whose clone may fail, such as reqwest's
    /// (`Request::try_clone`). A request that cannot be copied is sent once.
    pub fn clone_with<F, Req>(self, clone: F) -> RetryLayer<C, CloneWith<F>>
    where
        F: Fn(&Req) -> Option<Req>,
    {
        self.repeat(CloneWith::new(clone))
    }

    /// Decides with a closure whether a request is idempotent: whether it may be retried after a
    /// failure or a timeout, when it may have been processed already. A request that is not is
    /// retried only if it certainly was not processed.
    pub fn idempotent_if<F, Req>(self, idempotent: F) -> RetryLayer<C, IdempotentIf<Q, F>>
    where
        F: Fn(&Req) -> bool,
    {
        RetryLayer { retry: self.retry, classify: self.classify, repeat: IdempotentIf::new(self.repeat, idempotent) }
    }

    /// Changes the request with a closure before each further attempt. The closure is called with
    /// the number of the attempt, 2 for the first retry.
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
