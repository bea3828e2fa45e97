//! Shared by the behaviour tests: a scripted service, a recording observer, and small helpers.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

pub mod probe;
pub mod recorder;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio_test::task::Spawn;
use tower_rampart::{AsRejection, Rejection};
use tower_service::Service;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Polls once with a no-op waker.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs the futures of `work` on this many threads at once, each with its own runtime.
pub fn on_threads<F: Future<Output = ()>>(threads: usize, work: impl Fn(usize) -> F + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(thread));
            });
        }
    });
}

/// Runs the future on a runtime with a paused clock.
pub fn paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Polls the service's readiness in its own task.
pub fn poll_ready<S>(service: &mut Spawn<S>) -> Poll<Result<(), S::Error>>
where
    S: Service<&'static str> + Unpin,
{
    service.enter(|cx, mut service| service.poll_ready(cx))
}

/// Waits until the service is ready and calls it.
pub async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call("request").await
}

/// The rejection in the error of a result.
pub fn rejection_of<T>(result: &Result<T, BoxError>) -> Option<&Rejection> {
    result.as_ref().err().and_then(AsRejection::as_rejection)
}

/// The address of a boxed error, which identifies the error unless its type is zero-sized.
pub fn address(error: &BoxError) -> *const () {
    std::ptr::from_ref(&**error).cast()
}

/// Compiles if a handle or layer can be cloned, sent and shared.
pub fn assert_shareable<T: Clone + Send + Sync + 'static>(_: &T) {}

/// An application's error enum, written as the docs suggest.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("rejected")]
    Rejected(#[from] Rejection),
    #[error("failed")]
    Failed,
}

impl AsRejection for OwnError {
    fn as_rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Failed => None,
        }
    }
}
