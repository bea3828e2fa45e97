//! A scripted service that checks that its callers follow Tower's contract.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use tower_service::Service;

use super::BoxError;

/// How the probe handles a call.
pub enum Reply {
    Ok(&'static str),
    Err(BoxError),
    /// `Ok` at every poll, also after completion.
    Again(&'static str),
    /// Pending until [`Script::answer`], in first-come, first-served order.
    Later,
    PanicInCall,
    PanicInPoll,
    /// Pending forever; the future panics when it is dropped.
    PanicInDrop,
}

/// What the probe's `poll_ready` returns.
pub enum Ready {
    Yes,
    No,
    Err(&'static str),
}

/// Controls and observes all clones of a [`Probe`].
#[derive(Clone, Default)]
pub struct Script(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    pub ready_polls: AtomicUsize,
    pub calls: AtomicUsize,
    pub clones: AtomicUsize,
    pub live: AtomicUsize,
    pub finished: AtomicUsize,
}

#[derive(Default)]
struct State {
    not_ready: Option<Ready>,
    ready_wakers: Vec<Waker>,
    replies: VecDeque<Reply>,
    requests: Vec<&'static str>,
    answers: VecDeque<Result<&'static str, BoxError>>,
    answer_wakers: Vec<Waker>,
}

impl Script {
    /// Creates a probe and its script. Without scripted replies the probe responds `Ok("ok")`
    /// immediately.
    pub fn new() -> (Self, Probe) {
        let script = Self::default();
        let probe = Probe { script: script.clone(), ready: false };
        (script, probe)
    }

    /// Queues the reply for the next call.
    pub fn reply(&self, reply: Reply) -> &Self {
        self.0.state.lock().unwrap().replies.push_back(reply);
        self
    }

    /// Completes one call whose reply is [`Reply::Later`].
    pub fn answer(&self, answer: Result<&'static str, BoxError>) {
        let mut state = self.0.state.lock().unwrap();
        state.answers.push_back(answer);
        for waker in state.answer_wakers.drain(..) {
            waker.wake();
        }
    }

    /// Sets what `poll_ready` returns from now on, and wakes its waiters.
    pub fn set_ready(&self, ready: Ready) {
        let mut state = self.0.state.lock().unwrap();
        state.not_ready = if let Ready::Yes = ready { None } else { Some(ready) };
        for waker in state.ready_wakers.drain(..) {
            waker.wake();
        }
    }

    /// Discards queued replies that no call has taken.
    pub fn forget_replies(&self) {
        self.0.state.lock().unwrap().replies.clear();
    }

    /// Takes the requests received so far.
    pub fn requests(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.state.lock().unwrap().requests)
    }

    pub fn calls(&self) -> usize {
        self.0.calls.load(SeqCst)
    }

    pub fn ready_polls(&self) -> usize {
        self.0.ready_polls.load(SeqCst)
    }

    pub fn clones(&self) -> usize {
        self.0.clones.load(SeqCst)
    }

    /// Response futures that exist.
    pub fn live(&self) -> usize {
        self.0.live.load(SeqCst)
    }

    /// Response futures that completed.
    pub fn finished(&self) -> usize {
        self.0.finished.load(SeqCst)
    }
}

/// The service. Readiness belongs to the instance: `call` panics unless this instance was polled
/// ready, and a clone starts unready.
pub struct Probe {
    script: Script,
    ready: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        self.script.0.clones.fetch_add(1, SeqCst);
        Self { script: self.script.clone(), ready: false }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl Service<&'static str> for Probe {
    type Response = &'static str;
    type Error = BoxError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.script.0.ready_polls.fetch_add(1, SeqCst);
        let mut state = self.script.0.state.lock().unwrap();
        match state.not_ready {
            None | Some(Ready::Yes) => {
                self.ready = true;
                Poll::Ready(Ok(()))
            }
            Some(Ready::No) => {
                state.ready_wakers.push(cx.waker().clone());
                self.ready = false;
                Poll::Pending
            }
            Some(Ready::Err(error)) => Poll::Ready(Err(error.into())),
        }
    }

    fn call(&mut self, request: &'static str) -> ProbeFuture {
        assert!(std::mem::take(&mut self.ready), "called an instance that was not polled ready");
        self.script.0.calls.fetch_add(1, SeqCst);
        let mut state = self.script.0.state.lock().unwrap();
        state.requests.push(request);
        let reply = state.replies.pop_front().unwrap_or(Reply::Ok("ok"));
        drop(state);
        assert!(!matches!(reply, Reply::PanicInCall), "scripted panic in call");
        self.script.0.live.fetch_add(1, SeqCst);
        ProbeFuture { script: self.script.clone(), reply: Some(reply) }
    }
}

pub struct ProbeFuture {
    script: Script,
    reply: Option<Reply>,
}

impl Future for ProbeFuture {
    type Output = Result<&'static str, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match self.reply.take().expect("polled after completion") {
            Reply::Ok(response) => Ok(response),
            Reply::Err(error) => Err(error),
            Reply::Again(response) => {
                self.reply = Some(Reply::Again(response));
                Ok(response)
            }
            Reply::PanicInCall | Reply::PanicInPoll => panic!("scripted panic in poll"),
            Reply::PanicInDrop => {
                self.reply = Some(Reply::PanicInDrop);
                return Poll::Pending;
            }
            Reply::Later => {
                let mut state = self.script.0.state.lock().unwrap();
                match state.answers.pop_front() {
                    Some(answer) => answer,
                    None => {
                        state.answer_wakers.push(cx.waker().clone());
                        drop(state);
                        self.reply = Some(Reply::Later);
                        return Poll::Pending;
                    }
                }
            }
        };
        self.script.0.finished.fetch_add(1, SeqCst);
        Poll::Ready(result)
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        self.script.0.live.fetch_sub(1, SeqCst);
        // A second panic while one unwinds would abort the process.
        if matches!(self.reply, Some(Reply::PanicInDrop)) && !std::thread::panicking() {
            panic!("scripted panic in drop");
        }
    }
}
