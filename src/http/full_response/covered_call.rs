//! The layers' call while the response's body is in flight.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use tokio::runtime::Handle;

use super::{
    channel::{BodyEnd, ResponseChannel, lock},
    completed_response::CompletedResponse,
};
use crate::{AsRejection, BoxError};

/// A [`CoveredCall`] as the body of a response `Response<B>` sees it.
pub(super) trait Covering<B>: Send + Sync {
    /// Completes the call, because the body has ended.
    fn complete(self: Arc<Self>, channel: &ResponseChannel<B>, end: BodyEnd);

    /// Cancels the call, because the body was dropped before its end.
    fn cancel(&self);

    /// Returns the error that ended the call before the body's end. `Ready(None)` if the call ended
    /// without an error.
    fn poll_error(&self, cx: &mut Context<'_>) -> Poll<Option<BoxError>>;

    /// Polls the call if it was woken and no runtime drives it.
    fn drive_without_runtime(self: Arc<Self>);
}

/// The layers' call, and the waker of its timers.
///
/// The reader of the body completes or cancels the call, but does not drive it: when a timer of the
/// call fires, the waker spawns a task that polls the call, whether or not the body is being read.
/// A call whose timers do not fire costs no task. Without a tokio runtime, the waker wakes the
/// reader instead.
///
/// # Who owns what
///
/// The reader owns this struct, this struct owns the call, and the call's timers own the waker,
/// which is this struct again. The reader breaks the cycle: when it completes or is dropped, it
/// takes the call out. A task that is spawned to poll the call holds a reference for one poll. If
/// the runtime shuts down, it drops that task, the reference with it, and the call stays with the
/// reader, whose time limits are gone with the runtime's clock.
///
/// The call is polled by one thread at a time, and never under the lock: whoever polls takes it
/// out. A thread that finds it taken leaves a note for the one that polls.
pub(super) struct CoveredCall<F: Future> {
    state: Mutex<CallState<F>>,
    runtime: Option<Handle>,
}

struct CallState<F: Future> {
    progress: Progress<F>,
    /// The call was woken, and has not been polled since.
    woken: bool,
    /// How the reader has ended the call.
    ending: Ending,
    /// The call's output, unless it completed because the body ended.
    output: Option<F::Output>,
    /// Wakes the reader when the call has ended.
    reader: Option<Waker>,
}

enum Progress<F> {
    Idle(Pin<Box<F>>),
    Polling,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// The body has ended, and the inner service's half is ready.
    Complete,
    Cancel,
}

impl<F: Future> CoveredCall<F> {
    // 1 allocation, and 2 read-modify-writes on the runtime's reference count.
    pub(super) fn new(call: Pin<Box<F>>) -> Arc<Self> {
        let state = CallState {
            progress: Progress::Idle(call),
            woken: false,
            ending: Ending::NotYet,
            output: None,
            reader: None,
        };
        Arc::new(Self { state: Mutex::new(state), runtime: Handle::try_current().ok() })
    }

    /// Takes the call out to poll it. `None` if it is being polled, or over.
    fn start_poll(&self) -> Option<PolledCall<'_, F>> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut state.progress, Progress::Polling) {
            Progress::Idle(call) => {
                state.woken = false;
                Some(PolledCall { owner: self, call: Some(call) })
            }
            polling_or_over => {
                state.progress = polling_or_over;
                None
            }
        }
    }

    /// Takes the call's output, if it has ended.
    pub(super) fn take_output(&self) -> Option<F::Output> {
        lock(&self.state).output.take()
    }
}

impl<F> CoveredCall<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Polls the call, unless another thread does.
    pub(super) fn drive(self: &Arc<Self>) {
        if let Some(polled) = self.start_poll() {
            self.poll_call(polled, false);
        }
    }

    fn complete_now<B>(self: &Arc<Self>, channel: &ResponseChannel<B>, end: BodyEnd) {
        // Sending the end wakes the call, which would spawn a task if it were idle.
        let polled = self.start_poll();
        channel.send_body_end(end);
        // If another thread is polling the call, it finds this after its poll and polls again.
        lock(&self.state).ending = Ending::Complete;
        if let Some(polled) = polled.or_else(|| self.start_poll()) {
            self.poll_call(polled, true);
        }
    }

    /// Polls the call. `knows_end`: the body's end was sent before this poll.
    fn poll_call(self: &Arc<Self>, mut polled: PolledCall<'_, F>, mut knows_end: bool) {
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        while let Some(call) = &mut polled.call {
            if let Poll::Ready(output) = call.as_mut().poll(&mut cx) {
                // Dropped before the reader learns that the call is over.
                polled.call = None;
                return polled.end(Some(output));
            }
            match polled.pause(knows_end) {
                Paused::Idle { woken: false } => return,
                Paused::Idle { woken: true } => return self.schedule(),
                Paused::EndArrived => knows_end = true,
                // A layer that does not complete together with its inner service. It may take its
                // time, and needs no reader.
                Paused::Detached(call) => {
                    if let Some(runtime) = &self.runtime {
                        drop(runtime.spawn(call));
                    }
                    return;
                }
                Paused::Cancelled(call) => return drop(call),
            }
        }
    }

    /// Has the call polled soon.
    fn schedule(self: &Arc<Self>) {
        match &self.runtime {
            Some(runtime) => {
                let this = self.clone();
                drop(runtime.spawn(async move { this.drive() }));
            }
            None => {
                let reader = lock(&self.state).reader.take();
                if let Some(reader) = reader {
                    reader.wake();
                }
            }
        }
    }
}

/// Boxes a layer's error: its rejection, or else its text.
///
/// `E: Into<BoxError>` would not do. Where `E` is a boxed error in an async block, the compiler
/// does not see that it is `'static`, and the block would not be `Send`.
fn boxed<E: AsRejection + fmt::Display>(error: E) -> BoxError {
    match error.as_rejection() {
        Some(rejection) => rejection.clone().into(),
        None => error.to_string().into(),
    }
}

impl<F, B, E> Covering<B> for CoveredCall<F>
where
    F: Future<Output = Result<CompletedResponse<B>, E>> + Send + 'static,
    E: AsRejection + fmt::Display + Send,
{
    fn complete(self: Arc<Self>, channel: &ResponseChannel<B>, end: BodyEnd) {
        if !std::thread::panicking() {
            return self.complete_now(channel, end);
        }
        // A panic, perhaps the body's own, is dropping the body. A second one, in a classifier,
        // would abort the process.
        let _ = catch_unwind(AssertUnwindSafe(|| self.complete_now(channel, end)));
    }

    fn cancel(&self) {
        // If another thread is polling the call, it finds this after its poll and drops the call.
        lock(&self.state).ending = Ending::Cancel;
        if let Some(mut polled) = self.start_poll() {
            let call = polled.call.take();
            polled.end(None);
            drop(call);
        }
    }

    fn poll_error(&self, cx: &mut Context<'_>) -> Poll<Option<BoxError>> {
        let mut waker = None;
        loop {
            let mut state = lock(&self.state);
            if let Progress::Over = state.progress {
                let output = state.output.take();
                drop(state);
                return Poll::Ready(output.and_then(Result::err).map(boxed));
            }
            if state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if waker.is_some() {
                let replaced = std::mem::replace(&mut state.reader, waker);
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    fn drive_without_runtime(self: Arc<Self>) {
        if self.runtime.is_none() && lock(&self.state).woken {
            self.drive();
        }
    }
}

impl<F> Wake for CoveredCall<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_idle = {
            let mut state = lock(&self.state);
            let was_woken = std::mem::replace(&mut state.woken, true);
            !was_woken && matches!(state.progress, Progress::Idle(_))
        };
        // A call that is being polled is scheduled after the poll.
        if is_idle {
            self.schedule();
        }
    }
}

/// The call, taken out to be polled. If its poll panics, the call is over.
struct PolledCall<'a, F: Future> {
    owner: &'a CoveredCall<F>,
    call: Option<Pin<Box<F>>>,
}

enum Paused<F> {
    Idle {
        woken: bool,
    },
    /// The body has ended while the call was being polled.
    EndArrived,
    Detached(Pin<Box<F>>),
    Cancelled(Pin<Box<F>>),
}

impl<F: Future> PolledCall<'_, F> {
    /// The call is pending: puts it back, or takes it away if the reader has ended it.
    fn pause(&mut self, knows_end: bool) -> Paused<F> {
        let Some(call) = self.call.take() else { return Paused::Idle { woken: false } };
        let mut state = lock(&self.owner.state);
        match state.ending {
            Ending::NotYet => {
                state.progress = Progress::Idle(call);
                Paused::Idle { woken: state.woken }
            }
            Ending::Complete if !knows_end => {
                drop(state);
                self.call = Some(call);
                Paused::EndArrived
            }
            Ending::Complete => {
                state.progress = Progress::Over;
                Paused::Detached(call)
            }
            Ending::Cancel => {
                state.progress = Progress::Over;
                Paused::Cancelled(call)
            }
        }
    }

    /// The call is over.
    fn end(mut self, output: Option<F::Output>) {
        self.call = None;
        self.leave(output);
    }

    fn leave(&self, output: Option<F::Output>) {
        let (reader, output) = {
            let mut state = lock(&self.owner.state);
            state.progress = Progress::Over;
            // The output of a call whose body has ended is not needed.
            let unwanted = match state.ending {
                Ending::NotYet => {
                    state.output = output;
                    None
                }
                Ending::Complete | Ending::Cancel => output,
            };
            (state.reader.take(), unwanted)
        };
        drop(output);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<F: Future> Drop for PolledCall<'_, F> {
    fn drop(&mut self) {
        if self.call.is_some() {
            self.leave(None);
        }
    }
}
