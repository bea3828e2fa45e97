use std::{any::type_name, fmt};

/// Saves a request for its retries, and knows when it may be sent again.
///
/// The default is [`Cloned`], for requests that are `Clone`.
/// [`RetryLayer`](crate::retry::RetryLayer) has methods that take closures instead.
#[diagnostic::on_unimplemented(
    message = "the retry cannot copy the request `{Req}`",
    label = "`{Req}: Clone` is missing, which is how requests are copied by default",
    note = "for a request that can be copied only sometimes, use the layer's `.clone_with(..)`, as in `.clone_with(reqwest::Request::try_clone)`: without a copy it is sent once"
)]
pub trait Repeat<Req> {
    /// The saved form of a request. Often the request itself; another form can be cheaper, because
    /// nearly all saved requests are dropped without a retry.
    type Saved;

    /// Saves the request before it is sent. Returns `None` if it cannot be copied: it is then sent
    /// once, without retries.
    fn save(&self, request: &Req) -> Option<Self::Saved>;

    /// Makes the request again, for its next attempt. It is saved again before that, unless it is
    /// the last one.
    fn restore(&self, saved: Self::Saved) -> Req;

    /// Returns whether sending the request twice has the same effect as sending it once, or `None`
    /// if it is not known. `Some(false)` restricts the retries of the request to failures that the
    /// service has certainly not processed, as [`ReplaySafety::IfUnprocessed`] does. With `None`,
    /// the retry's own setting decides after a timeout. Called after an attempt has failed.
    fn is_idempotent(&self, saved: &Self::Saved) -> Option<bool> {
        let _ = saved;
        None
    }

    /// Returns the failures after which the request may be sent again. Called after an attempt has
    /// failed: by then a body that was recorded while it was sent may have turned out to be too
    /// long.
    fn replay_safety(&self, saved: &Self::Saved) -> ReplaySafety {
        let _ = saved;
        ReplaySafety::AfterFailure
    }

    /// Changes the request for its next attempt, for example its host or a header with the
    /// attempt's number. `attempt` is 2 for the first retry.
    fn prepare(&self, attempt: u32, request: &mut Req) {
        let _ = (attempt, request);
    }
}

/// The failures after which a request may be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplaySafety {
    /// After every failure, but after a timeout only if the request is idempotent. If the request
    /// is [not](Repeat::is_idempotent), as `IfUnprocessed`.
    #[default]
    AfterFailure,
    /// Only if the service has certainly not processed it: if an inner layer rejected the call,
    /// other than by a timeout, or if the classifier [says so](crate::Classify::was_attempted).
    IfUnprocessed,
    /// Never.
    Never,
}

/// Clones the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cloned;

#[diagnostic::do_not_recommend]
impl<Req: Clone> Repeat<Req> for Cloned {
    type Saved = Req;

    #[inline(always)]
    fn save(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn restore(&self, saved: Req) -> Req {
        saved
    }
}

/// Copies the request with a closure that may fail. Created by
/// [`RetryLayer::clone_with`](crate::retry::RetryLayer::clone_with).
#[derive(Clone, Copy)]
pub struct CloneWith<F>(F);

impl<F> CloneWith<F> {
    /// Creates a `Repeat` from `clone`, which returns `None` for a request that it cannot copy.
    pub const fn new(clone: F) -> Self {
        Self(clone)
    }
}

impl<F, Req> Repeat<Req> for CloneWith<F>
where
    F: Fn(&Req) -> Option<Req>,
{
    type Saved = Req;

    #[inline]
    fn save(&self, request: &Req) -> Option<Req> {
        (self.0)(request)
    }

    fn restore(&self, saved: Req) -> Req {
        saved
    }
}

/// Decides with a closure whether a request is idempotent. Created by
/// [`RetryLayer::idempotent_if`](crate::retry::RetryLayer::idempotent_if).
#[derive(Clone, Copy)]
pub struct IdempotentIf<Q, F> {
    repeat: Q,
    idempotent: F,
}

impl<Q, F> IdempotentIf<Q, F> {
    /// Wraps `repeat`. `idempotent` decides whether a request may be retried after a timeout. It is
    /// called before the request is sent.
    pub const fn new(repeat: Q, idempotent: F) -> Self {
        Self { repeat, idempotent }
    }
}

impl<Q, F, Req> Repeat<Req> for IdempotentIf<Q, F>
where
    Q: Repeat<Req>,
    F: Fn(&Req) -> bool,
{
    /// The request, and whether it is idempotent: the closure does not see the saved form.
    type Saved = (Q::Saved, bool);

    #[inline]
    fn save(&self, request: &Req) -> Option<Self::Saved> {
        let saved = self.repeat.save(request)?;
        Some((saved, (self.idempotent)(request)))
    }

    fn restore(&self, (saved, _): Self::Saved) -> Req {
        self.repeat.restore(saved)
    }

    fn is_idempotent(&self, (_, is_idempotent): &Self::Saved) -> Option<bool> {
        Some(*is_idempotent)
    }

    fn replay_safety(&self, (saved, _): &Self::Saved) -> ReplaySafety {
        self.repeat.replay_safety(saved)
    }

    fn prepare(&self, attempt: u32, request: &mut Req) {
        self.repeat.prepare(attempt, request);
    }
}

/// Changes the request with a closure before each further attempt. Created by
/// [`RetryLayer::prepare_with`](crate::retry::RetryLayer::prepare_with).
#[derive(Clone, Copy)]
pub struct PrepareWith<Q, F> {
    repeat: Q,
    prepare: F,
}

impl<Q, F> PrepareWith<Q, F> {
    /// Wraps `repeat`. `prepare` changes the request before each further attempt.
    pub const fn new(repeat: Q, prepare: F) -> Self {
        Self { repeat, prepare }
    }
}

impl<Q, F, Req> Repeat<Req> for PrepareWith<Q, F>
where
    Q: Repeat<Req>,
    F: Fn(u32, &mut Req),
{
    type Saved = Q::Saved;

    #[inline]
    fn save(&self, request: &Req) -> Option<Q::Saved> {
        self.repeat.save(request)
    }

    fn restore(&self, saved: Q::Saved) -> Req {
        self.repeat.restore(saved)
    }

    fn is_idempotent(&self, saved: &Q::Saved) -> Option<bool> {
        self.repeat.is_idempotent(saved)
    }

    fn replay_safety(&self, saved: &Q::Saved) -> ReplaySafety {
        self.repeat.replay_safety(saved)
    }

    fn prepare(&self, attempt: u32, request: &mut Req) {
        self.repeat.prepare(attempt, request);
        (self.prepare)(attempt, request);
    }
}

impl<F> fmt::Debug for CloneWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloneWith").finish_non_exhaustive()
    }
}

impl<Q: fmt::Debug, F> fmt::Debug for IdempotentIf<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentIf").field("repeat", &self.repeat).finish_non_exhaustive()
    }
}

impl<Q: fmt::Debug, F> fmt::Debug for PrepareWith<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareWith").field("repeat", &self.repeat).finish_non_exhaustive()
    }
}

/// Whether HTTP requests are only cloned, so that a POST that failed is sent again.
///
/// The types are recognized by their names, which the compiler compares: nothing of it remains
/// where they are others. It serves a warning only.
#[inline(always)]
pub(crate) fn overlooks_method<Q, Req>() -> bool {
    const REQUESTS: [&str; 2] = ["http::request::Request<", "reqwest::async_impl::request::Request"];
    type_name::<Q>() == type_name::<Cloned>() && REQUESTS.into_iter().any(|name| type_name::<Req>().starts_with(name))
}
