use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;
use tower_service::Service;

use super::{
    CircuitBreaker,
    future::ResponseFuture,
    inner::{Inner, Slot, admit},
};
use crate::{
    classify::{Classify, DefaultClassifier},
    error::FromRejection,
    guarded::Guarded,
    hold::Hold,
    readiness::{Backpressure, Reject},
    state::circuit::Outlook,
    wake::Place,
};

/// Service made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreakerService<S, C = DefaultClassifier, M = Reject> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
    readied: Readied,
    mode: PhantomData<fn() -> M>,
}

/// What the last `poll_ready` has come to.
enum Readied {
    Nothing,
    /// The circuit refuses, so the service within was not asked: `call` must not reach it.
    Refusing,
    /// A place for a probe is reserved (backpressure only).
    Probe(Slot<Hold<Inner>>),
    /// Waiting for a change of the circuit.
    Waiting(Waiting),
}

impl Readied {
    /// Has the task woken when the circuit changes. Look at the circuit afterwards: a change that the look does not see
    /// wakes the task.
    fn wait(&mut self, breaker: &CircuitBreaker, cx: &Context<'_>) -> &mut Waiting {
        if !matches!(self, Self::Waiting(_)) {
            *self = Self::Waiting(Waiting { breaker: breaker.clone(), place: None, sleep: None });
        }
        let Self::Waiting(waiting) = self else { unreachable!("it was just set") };
        breaker.0.waiters.register(&mut waiting.place, cx.waker());
        waiting
    }
}

impl<S> CircuitBreakerService<S> {
    /// Refuses while `breaker` is open; judges by [`DefaultClassifier`].
    pub fn new(inner: S, breaker: &CircuitBreaker) -> Self {
        Self::with(inner, breaker, DefaultClassifier)
    }
}

impl<S, C, M> CircuitBreakerService<S, C, M> {
    pub(super) fn with(inner: S, breaker: &CircuitBreaker, classify: C) -> Self {
        Self { inner, breaker: breaker.clone(), classify, readied: Readied::Nothing, mode: PhantomData }
    }

    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

/// A clone starts without readiness.
impl<S: Clone, C: Clone, M> Clone for CircuitBreakerService<S, C, M> {
    fn clone(&self) -> Self {
        Self::with(self.inner.clone(), &self.breaker, self.classify.clone())
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for CircuitBreakerService<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService").field("inner", &self.inner).field("breaker", &self.breaker).finish()
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Reject>
where
    S: Service<Req>,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // A service that is stuck must not delay the refusal.
        if !self.breaker.0.refuses() {
            if let Poll::Ready(ready) = self.inner.poll_ready(cx) {
                self.readied = Readied::Nothing;
                return Poll::Ready(ready);
            }
            // Nor must it when the circuit opens while the task waits for it.
            self.readied.wait(&self.breaker, cx);
            if !self.breaker.0.refuses() {
                return Poll::Pending;
            }
        }
        self.readied = Readied::Refusing;
        Poll::Ready(Ok(()))
    }

    // Closed and healthy: 2 RMWs on this thread's reference count, and of the circuit one load here, one in
    // `poll_ready` and two at the end; a time window adds one RMW on the thread's own line and one clock read, slow
    // calls one more clock read. No allocation.
    fn call(&mut self, request: Req) -> Self::Future {
        if let Readied::Refusing = mem::replace(&mut self.readied, Readied::Nothing) {
            return ResponseFuture::new(Guarded::refused(self.breaker.0.refuse()));
        }
        ResponseFuture::new(match admit(self.breaker.0.hold(), self.classify.clone()) {
            Ok(guard) => Guarded::Calling { future: self.inner.call(request), guard },
            Err(rejection) => Guarded::refused(rejection),
        })
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Backpressure>
where
    S: Service<Req>,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.poll_circuit(cx).is_pending() {
            return Poll::Pending;
        }
        let inner = self.inner.poll_ready(cx);
        if !matches!(inner, Poll::Ready(Ok(()))) {
            // A probe's place is not kept while the service is not ready: others could use it.
            self.readied = Readied::Nothing;
        }
        inner
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let admitted = match mem::replace(&mut self.readied, Readied::Nothing) {
            Readied::Probe(slot) if slot.is_current() => Ok(slot.begin(self.classify.clone())),
            _ => admit(self.breaker.0.hold(), self.classify.clone()),
        };
        ResponseFuture::new(match admitted {
            Ok(guard) => Guarded::Calling { future: self.inner.call(request), guard },
            Err(rejection) => Guarded::refused(rejection),
        })
    }
}

impl<S, C> CircuitBreakerService<S, C, Backpressure> {
    fn poll_circuit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let breaker = &self.breaker.0;
        loop {
            match &self.readied {
                Readied::Probe(slot) if slot.is_current() => return Poll::Ready(()),
                Readied::Probe(_) => self.readied = Readied::Nothing,
                Readied::Waiting(_) => {
                    self.readied.wait(&self.breaker, cx);
                }
                Readied::Nothing | Readied::Refusing => {}
            }
            match breaker.circuit.outlook(|| breaker.now()) {
                Outlook::Open => {
                    self.readied = Readied::Nothing;
                    return Poll::Ready(());
                }
                Outlook::Probe => match Slot::try_take(breaker.hold()) {
                    Some(slot) if slot.is_probe() => self.readied = Readied::Probe(slot),
                    // It has closed meanwhile, or somebody was faster: look again.
                    Some(_) | None => {}
                },
                Outlook::Wait { until } => {
                    let Readied::Waiting(waiting) = &mut self.readied else {
                        self.readied.wait(&self.breaker, cx);
                        continue;
                    };
                    let Some(until) = until else { return Poll::Pending };
                    let left = until.saturating_since(breaker.now());
                    let mut sleep = Box::pin(tokio::time::sleep(left));
                    if sleep.as_mut().poll(cx).is_pending() {
                        waiting.sleep = Some(sleep);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// A task that waits for the circuit.
struct Waiting {
    breaker: CircuitBreaker,
    place: Option<Place>,
    /// Kept for its wake-up at the end of the open time. Allocated by a task that waits for that (backpressure only).
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.breaker.0.waiters.deregister(&mut self.place);
    }
}
