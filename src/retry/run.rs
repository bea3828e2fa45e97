//! The attempts of [`Retry::run`](super::Retry::run).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::inner::{Attempt, Next, ReplayHints, RetryInner, RetryState};
use crate::{
    call::{CancelOnDrop, PanicGuard, ServiceGuard, classify_result, emit_admitted},
    classify::{Classify, Verdict},
    error::AsRejection,
};

/// Runs the futures that `attempt` makes, until one succeeds or should not be retried.
pub(super) async fn run<C, F, Fut, T, E>(retry: &RetryInner, classify: C, mut attempt: F) -> Result<T, E>
where
    C: Classify<T, E>,
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: AsRejection,
{
    let mut call = RunningCall::begin(retry);
    let mut number = 1;
    loop {
        let mut result = call.attempt(|| attempt(number)).await;
        let verdict = classify_result(&retry.events, &classify, result.as_ref());
        let next = if verdict == Verdict::Success {
            retry.succeeded(Some(call.state()));
            Next::Final
        } else {
            let (result, hints) = (result.as_ref(), ReplayHints::default);
            let attempt = Attempt { verdict, classify: &classify, result, has_copy: true, hints };
            retry.next_after(call.state(), attempt)
        };
        let Next::Retry(delay) = next else {
            if let (Next::Exhausted, Ok(response)) = (next, &mut result) {
                classify.mark_exhausted(response);
            }
            call.consume(|state| retry.finish(state, verdict));
            return result;
        };
        // A failed response may hold a connection and is dropped before the delay.
        let error = result.err();
        tokio::time::sleep(delay).await;
        if let Some(error) = error
            && retry.is_late(call.state())
        {
            call.consume(|state| retry.stop(state));
            return Err(error);
        }
        number = call.state().next();
        call.state().sent();
    }
}

/// A call in flight. Dropping it cancels the call.
struct RunningCall<'a> {
    retry: &'a RetryInner,
    /// `None` once the call has completed.
    state: Option<RetryState>,
}

impl<'a> RunningCall<'a> {
    fn begin(retry: &'a RetryInner) -> Self {
        Self { retry, state: Some(emit_admitted(&retry.events, retry, retry.begin())) }
    }

    fn state(&mut self) -> &mut RetryState {
        self.state.as_mut().expect("the state is consumed last")
    }

    fn consume(&mut self, consume: impl FnOnce(RetryState)) {
        if let Some(state) = self.state.take() {
            consume(state);
        }
    }

    /// The next attempt.
    fn attempt<F>(&mut self, make: impl FnOnce() -> F) -> RunningAttempt<'_, F> {
        let guard = ServiceGuard::enter(self.retry, &mut self.state);
        let future = make();
        guard.leave();
        RunningAttempt { retry: self.retry, state: &mut self.state, future }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        drop(self.state.take().map(|state| CancelOnDrop::new(self.retry, state)));
    }
}

pin_project! {
    struct RunningAttempt<'a, F> {
        retry: &'a RetryInner,
        state: &'a mut Option<RetryState>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for RunningAttempt<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut guard = PanicGuard::new(*this.retry, *this.state);
        let Some(state) = guard.in_flight() else { unreachable!("an attempt runs before its call completes") };
        let scope = this.retry.enter_attempt(state, true);
        guard.enter_service();
        let polled = this.future.poll(cx);
        let inner = scope.leave();
        if let Some(state) = guard.in_flight() {
            state.polled(&inner);
        }
        guard.disarm();
        polled
    }
}
