//! The channel between the two halves of one call.

use std::{
    mem,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use ::http::{HeaderMap, Response};

/// Connects the outer half of a call, which returns to the caller, with its inner half, which calls
/// the service.
///
/// The response travels outward, and the end of its body travels back inward. Each travels once. In
/// between, the body is kept here while the caller does not poll it: a layer that drops the inner
/// half, as a timeout does, drops the body with it.
///
/// No foreign code runs under a lock: not the body, and no waker is cloned, woken or dropped there.
pub(super) struct ResponseChannel<B> {
    response: OneShot<Response<B>>,
    body: Mutex<BodySlot<B>>,
    end: OneShot<BodyEnd>,
}

enum BodySlot<B> {
    /// The response has not been handed over.
    NotYet,
    /// The caller is not polling the body. `awaited`: its last poll was pending.
    Kept { body: Pin<Box<B>>, awaited: bool },
    /// The caller is polling the body, or has dropped it.
    Taken,
    /// The inner half was dropped, or ended the body.
    BrokenOff(BrokenOff),
}

/// Why a body was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokenOff {
    /// A layer dropped the inner half of the call.
    ByLayer,
    /// A time limit passed while the caller did not read.
    Unread,
}

/// How a body ended.
#[derive(Default)]
pub(super) struct BodyEnd {
    pub(super) trailers: Option<HeaderMap>,
    pub(super) kind: EndKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EndKind {
    #[default]
    Complete,
    /// The body failed.
    Broken,
    /// A time limit passed while the caller did not read.
    Unread,
}

impl BodyEnd {
    pub(super) fn of_kind(kind: EndKind) -> Self {
        Self { trailers: None, kind }
    }
}

impl<B> ResponseChannel<B> {
    pub(super) fn new() -> Self {
        Self { response: OneShot::new(), body: Mutex::new(BodySlot::NotYet), end: OneShot::new() }
    }

    pub(super) fn send_response(&self, response: Response<B>) {
        self.response.send(response);
    }

    pub(super) fn poll_response(&self, cx: &mut Context<'_>) -> Poll<Response<B>> {
        self.response.poll(cx)
    }

    pub(super) fn send_body_end(&self, end: BodyEnd) {
        self.end.send(end);
    }

    pub(super) fn poll_body_end(&self, cx: &mut Context<'_>) -> Poll<BodyEnd> {
        self.end.poll(cx)
    }

    /// Keeps the body until the caller polls it. Returns it if it has been broken off.
    pub(super) fn keep_body(&self, body: Pin<Box<B>>, awaited: bool) -> Result<(), (Pin<Box<B>>, BrokenOff)> {
        let mut slot = lock(&self.body);
        match *slot {
            BodySlot::BrokenOff(reason) => Err((body, reason)),
            _ => {
                *slot = BodySlot::Kept { body, awaited };
                Ok(())
            }
        }
    }

    /// Takes the body to poll or to drop it.
    pub(super) fn take_body(&self) -> Result<Pin<Box<B>>, BrokenOff> {
        let mut slot = lock(&self.body);
        match mem::replace(&mut *slot, BodySlot::Taken) {
            BodySlot::Kept { body, .. } => Ok(body),
            BodySlot::BrokenOff(reason) => {
                *slot = BodySlot::BrokenOff(reason);
                Err(reason)
            }
            // The body panicked when it was polled last.
            BodySlot::NotYet | BodySlot::Taken => Err(BrokenOff::ByLayer),
        }
    }

    /// Drops the body, because the inner half was dropped.
    pub(super) fn break_off(&self) {
        let slot = mem::replace(&mut *lock(&self.body), BodySlot::BrokenOff(BrokenOff::ByLayer));
        drop(slot);
    }

    /// Whether the body waits for the caller, rather than the caller for the body.
    pub(super) fn is_unread(&self) -> bool {
        matches!(*lock(&self.body), BodySlot::Kept { awaited: false, .. })
    }

    /// Drops the body if it [is unread](Self::is_unread). Returns whether it was.
    pub(super) fn break_off_unread(&self) -> bool {
        let mut slot = lock(&self.body);
        if !matches!(*slot, BodySlot::Kept { awaited: false, .. }) {
            return false;
        }
        let body = mem::replace(&mut *slot, BodySlot::BrokenOff(BrokenOff::Unread));
        drop(slot);
        drop(body);
        true
    }
}

/// A value that is sent once.
struct OneShot<T>(Mutex<OneShotState<T>>);

struct OneShotState<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> OneShot<T> {
    fn new() -> Self {
        Self(Mutex::new(OneShotState { value: None, waker: None }))
    }

    fn send(&self, value: T) {
        let waker = {
            let mut state = lock(&self.0);
            state.value = Some(value);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut waker = None;
        loop {
            let mut state = lock(&self.0);
            if let Some(value) = state.value.take() {
                drop(state);
                return Poll::Ready(value);
            }
            if state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if waker.is_some() {
                let replaced = mem::replace(&mut state.waker, waker);
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
