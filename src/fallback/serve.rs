use std::{
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{error::AsRejection, event::Served, shared::template::Template};

/// Selects the results that a fallback replaces.
///
/// Implemented by every `Fn(Result<&T, &E>) -> bool`.
pub trait When<T, E> {
    /// Whether to replace `result`.
    fn applies(&self, result: Result<&T, &E>) -> bool;
}

impl<F, T, E> When<T, E> for F
where
    F: Fn(Result<&T, &E>) -> bool,
{
    fn applies(&self, result: Result<&T, &E>) -> bool {
        self(result)
    }
}

/// Selects the rejections of inner layers. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rejected;

impl<T, E: AsRejection> When<T, E> for Rejected {
    fn applies(&self, result: Result<&T, &E>) -> bool {
        result.is_err_and(|error| error.as_rejection().is_some())
    }
}

/// Makes the fallback that replaces a result.
pub trait Serve<Req, T, E> {
    /// The part of the request that the fallback needs.
    type Kept;
    /// The future that makes the fallback.
    type Future: Future<Output = Result<T, E>>;

    /// Copies the part that the fallback needs, before the service gets the request.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// Makes the fallback for `result`.
    fn serve(&self, kept: Self::Kept, result: Result<T, E>) -> Self::Future;

    /// Returns the kind of fallback, for the event.
    fn kind(&self) -> Served;
}

/// Serves clones of a value. Created by [`Fallback::value`](super::Fallback::value).
#[derive(Clone)]
pub struct ServeValue<T>(pub(super) T);

impl<Req, T: Clone, E> Serve<Req, T, E> for ServeValue<T> {
    type Kept = ();
    type Future = Ready<Result<T, E>>;

    fn keep(&self, _request: &Req) {}

    fn serve(&self, (): (), _result: Result<T, E>) -> Self::Future {
        ready(Ok(self.0.clone()))
    }

    fn kind(&self) -> Served {
        Served::Value
    }
}

/// Serves the output of a function. Created by [`Fallback::function`](super::Fallback::function).
#[derive(Clone)]
pub struct ServeFunction<F>(pub(super) F);

impl<F, Fut, Req: Clone, T, E> Serve<Req, T, E> for ServeFunction<F>
where
    F: Fn(Req, Result<T, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Kept = Req;
    type Future = Fut;

    fn keep(&self, request: &Req) -> Req {
        request.clone()
    }

    fn serve(&self, kept: Req, result: Result<T, E>) -> Fut {
        (self.0)(kept, result)
    }

    fn kind(&self) -> Served {
        Served::Function
    }
}

/// Serves the output of a function of a part of the request. Created by
/// [`Fallback::function_with`](super::Fallback::function_with).
#[derive(Clone)]
pub struct ServeFunctionWith<K, F> {
    pub(super) keep: K,
    pub(super) function: F,
}

impl<K, F, Fut, Req, Kept, T, E> Serve<Req, T, E> for ServeFunctionWith<K, F>
where
    K: Fn(&Req) -> Kept,
    F: Fn(Kept, Result<T, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Kept = Kept;
    type Future = Fut;

    fn keep(&self, request: &Req) -> Kept {
        (self.keep)(request)
    }

    fn serve(&self, kept: Kept, result: Result<T, E>) -> Fut {
        (self.function)(kept, result)
    }

    fn kind(&self) -> Served {
        Served::Function
    }
}

/// Serves the response of another service. Created by
/// [`Fallback::service`](super::Fallback::service).
pub struct ServeService<S>(Arc<Template<S>>);

impl<S> ServeService<S> {
    pub(super) fn new(service: S) -> Self {
        Self(Arc::new(Template::new(service)))
    }
}

impl<S> Clone for ServeService<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, Req: Clone, T, E> Serve<Req, T, E> for ServeService<S>
where
    S: Service<Req, Response = T, Error = E> + Clone,
{
    type Kept = Req;
    type Future = Oneshot<S, Req, S::Future>;

    fn keep(&self, request: &Req) -> Req {
        request.clone()
    }

    fn serve(&self, kept: Req, _result: Result<T, E>) -> Self::Future {
        Oneshot { state: OneshotState::Readying { template: self.0.clone(), service: None, request: Some(kept) } }
    }

    fn kind(&self) -> Served {
        Served::Service
    }
}

pin_project! {
    /// Clones a service, polls it until it is ready, then calls it once.
    pub struct Oneshot<S, Req, F> {
        #[pin]
        state: OneshotState<S, Req, F>,
    }
}

pin_project! {
    #[project = OneshotProj]
    enum OneshotState<S, Req, F> {
        Readying { template: Arc<Template<S>>, service: Option<S>, request: Option<Req> },
        Calling { #[pin] future: F },
    }
}

impl<S, Req> Future for Oneshot<S, Req, S::Future>
where
    S: Service<Req> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let future = match state.as_mut().project() {
                OneshotProj::Calling { future } => return future.poll(cx),
                OneshotProj::Readying { template, service, request } => {
                    if service.is_none() {
                        *service = template.try_clone();
                    }
                    let Some(service) = service else {
                        // Another call is cloning it.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    ready!(service.poll_ready(cx))?;
                    service.call(request.take().expect("called once"))
                }
            };
            state.set(OneshotState::Calling { future });
        }
    }
}

impl<T> fmt::Debug for ServeValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeValue").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ServeFunction<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeFunction").finish_non_exhaustive()
    }
}

impl<K, F> fmt::Debug for ServeFunctionWith<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeFunctionWith").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for ServeService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeService").finish_non_exhaustive()
    }
}

impl<S, Req, F> fmt::Debug for Oneshot<S, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oneshot").finish_non_exhaustive()
    }
}
