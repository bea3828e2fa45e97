//! The channel between the two halves of one call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use ::http::{HeaderMap, Response};

/// Connects the outer half of a call, which returns to the caller, with its inner half, which calls
/// the service.
///
/// The response travels outward, and the end of its body travels back inward. Each travels once.
pub(super) struct ResponseChannel<B>(Mutex<ChannelState<B>>);

struct ChannelState<B> {
    response: Option<Response<B>>,
    response_waker: Option<Waker>,
    body_end: Option<BodyEnd>,
    body_end_waker: Option<Waker>,
}

/// How a body ended.
#[derive(Default)]
pub(super) struct BodyEnd {
    pub(super) trailers: Option<HeaderMap>,
    pub(super) is_broken: bool,
}

impl<B> ResponseChannel<B> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ChannelState { response: None, response_waker: None, body_end: None, body_end_waker: None }))
    }

    fn lock(&self) -> MutexGuard<'_, ChannelState<B>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send_response(&self, response: Response<B>) {
        let waker = {
            let mut state = self.lock();
            state.response = Some(response);
            state.response_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll_response(&self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        let mut state = self.lock();
        match state.response.take() {
            Some(response) => Poll::Ready(response),
            None => {
                state.response_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn send_body_end(&self, end: BodyEnd) {
        let waker = {
            let mut state = self.lock();
            state.body_end = Some(end);
            state.body_end_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll_body_end(&self, cx: &mut Context<'_>) -> Poll<BodyEnd> {
        let mut state = self.lock();
        match state.body_end.take() {
            Some(end) => Poll::Ready(end),
            None => {
                state.body_end_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
