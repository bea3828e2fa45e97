use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{timer::RearmableTimer, waits::Waits};
use crate::{
    Rejection,
    classify::Verdict,
    clock, deadline,
    error::FromRejection,
    event::EventKind,
    timeout::{Expired, Timeout},
};

pin_project! {
    /// Future of [`UploadTimeout`](crate::http::UploadTimeout).
    ///
    /// # Panics
    ///
    /// A call that is not ready at its first poll panics outside of a tokio runtime with time
    /// enabled.
    pub struct UploadTimeoutFuture<F> {
        // `None` once the call was rejected. Dropped before the attempt.
        #[pin]
        call: Option<F>,
        attempt: Option<Attempt>,
        rejection: Option<Rejection>,
    }
}

/// An attempt and its clock. Points in time are nanoseconds on the handles' timeline.
pub(super) struct Attempt {
    timeout: Timeout,
    started: u64,
    limit: u64,
    /// The earliest deadline around the call that no other timer enforces, or `NEVER`.
    outer: u64,
    /// `None` for a request without a body.
    waits: Option<Arc<Waits>>,
    timer: RearmableTimer,
    /// The timer is armed for the time at which the attempt ends if its wait for the caller lasts
    /// as long as it may.
    armed_beyond_wait: bool,
    is_completed: bool,
}

impl Attempt {
    pub(super) fn new(timeout: Timeout, started: u64, limit: u64, outer: u64, waits: Option<Arc<Waits>>) -> Self {
        timeout.0.events.emit(|| EventKind::Admitted);
        Self {
            timeout,
            started,
            limit,
            outer,
            waits,
            timer: RearmableTimer::default(),
            armed_beyond_wait: false,
            is_completed: false,
        }
    }

    /// When the attempt ends if its clock stands still for this long.
    fn deadline(&self, paused: u64) -> u64 {
        self.started.saturating_add(self.limit).saturating_add(paused).min(self.outer)
    }

    /// When the attempt ends at the latest.
    pub(super) fn latest(&self) -> u64 {
        self.deadline(self.waits.as_ref().map_or(0, |waits| waits.longest()))
    }

    pub(super) fn started<F>(self, call: F) -> UploadTimeoutFuture<F> {
        UploadTimeoutFuture { call: Some(call), attempt: Some(self), rejection: None }
    }

    /// Ready when the limit has passed.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.timer.is_armed() {
            self.timer.arm(self.deadline(0));
        } else if self.armed_beyond_wait {
            self.armed_beyond_wait = false;
            self.rearm(cx);
        }
        loop {
            ready!(self.timer.poll(cx));
            let now = clock::nanos();
            let paused = self.waits.as_ref().map_or(0, |waits| waits.paused(now));
            if now >= self.deadline(paused) {
                return Poll::Ready(());
            }
            self.rearm(cx);
        }
    }

    /// Arms the timer for the time at which the attempt may end, as of now.
    fn rearm(&mut self, cx: &mut Context<'_>) {
        let paused = match self.waits.as_ref().and_then(|waits| waits.register(cx.waker().clone())) {
            Some(paused) => {
                self.armed_beyond_wait = true;
                paused
            }
            None => self.waits.as_ref().map_or(0, |waits| waits.paused(clock::nanos())),
        };
        self.timer.arm(self.deadline(paused));
    }

    fn elapsed(&self) -> Option<Duration> {
        Some(Duration::from_nanos(clock::nanos().saturating_sub(self.started)))
    }

    fn complete(&mut self, verdict: Verdict) {
        self.is_completed = true;
        // A caller that keeps the future keeps no timer.
        self.timer = RearmableTimer::default();
        self.timeout.0.events.emit(|| EventKind::Completed { verdict, elapsed: self.elapsed() });
    }

    fn time_out(&mut self) -> Rejection {
        self.is_completed = true;
        let limit = Duration::from_nanos(self.deadline(0).saturating_sub(self.started));
        let paused = self.waits.as_ref().map_or(0, |waits| waits.paused(clock::nanos()));
        let own = self.started.saturating_add(self.limit).saturating_add(paused);
        self.timeout.reject_expired(limit, if self.outer < own { Expired::Outer } else { Expired::Own })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_completed {
            self.timeout.0.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: self.elapsed() });
        }
    }
}

impl<F> UploadTimeoutFuture<F> {
    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { call: None, attempt: None, rejection: Some(rejection) }
    }
}

impl<F, T, E> Future for UploadTimeoutFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: FromRejection,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(call), Some(attempt)) = (this.call.as_mut().as_pin_mut(), this.attempt.as_mut()) else {
            return Poll::Ready(Err(this.rejection.take().expect("polled after it completed").into()));
        };
        let polled = match clock::instant_of(attempt.latest()) {
            Some(at) => deadline::within(at, || call.poll(cx)),
            None => call.poll(cx),
        };
        // A response that is ready wins over the limit.
        if let Poll::Ready(result) = polled {
            attempt.complete(if result.is_ok() { Verdict::Success } else { Verdict::Failure });
            return Poll::Ready(result);
        }
        ready!(attempt.poll_limit(cx));
        // The inner call is dropped before the rejection is reported.
        this.call.set(None);
        Poll::Ready(Err(attempt.time_out().into()))
    }
}

impl<F> fmt::Debug for UploadTimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadTimeoutFuture").finish_non_exhaustive()
    }
}
