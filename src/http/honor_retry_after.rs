use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::StatusCode;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseHead, classify, hint};
use crate::{
    circuit_breaker::CircuitBreaker,
    shared::striped::{StripedArc, StripedRef},
    verdict::Verdict,
};

/// Opens a circuit for as long as the service's `Retry-After` asks, on 429 and 503 responses.
///
/// Place it inside the breaker's own layer. The breaker alone would first collect its own evidence;
/// this layer honors the service's `Retry-After` sooner, for all callers.
///
/// A single response speaks for the request that it rejects: a server with one permit too few
/// rejects one call of nine, and serves the others. The layer opens the circuit once two or more
/// responses in succession have asked for a wait, and every call that was in flight when the first
/// of them arrived has completed, none of them successfully. From then on, until a call succeeds,
/// each such response does. Other failures do not count either way. A call that takes long to
/// respond therefore delays the layer; the breaker's own evidence does not wait for it.
///
/// It is wrong when a 429 is about one user of many: use
/// [`only_unavailable`](Self::only_unavailable), or a breaker per user. See
/// [`CircuitBreaker::honor_retry_after`]. Around a client that follows redirects, a response may be
/// that of another server.
///
/// Waits longer than [`at_most`](Self::at_most) (one minute by default) are shortened to it, so
/// that a mistaken header cannot cut off a dependency for a day.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{circuit_breaker::CircuitBreaker, http::{HonorRetryAfterLayer, HttpClassifier}};
///
/// let breaker = CircuitBreaker::new("inventory");
/// let layers = ServiceBuilder::new()
///     .layer(breaker.layer().classify(HttpClassifier::new()))
///     .layer(HonorRetryAfterLayer::new(&breaker));
/// # let _ = layers;
/// ```
#[derive(Clone, Debug)]
pub struct HonorRetryAfterLayer {
    honor: Arc<Honor>,
}

#[derive(Clone, Debug)]
struct Settings {
    breaker: CircuitBreaker,
    at_most: Duration,
    on_throttled: bool,
}

impl HonorRetryAfterLayer {
    /// Opens `breaker` on 429 and 503 responses, for at most one minute. All services made by the
    /// layer and its clones share what they learn.
    pub fn new(breaker: &CircuitBreaker) -> Self {
        let settings = Settings { breaker: breaker.clone(), at_most: Duration::from_secs(60), on_throttled: true };
        Self { honor: Honor::new(settings) }
    }

    /// Sets the longest time for which the circuit is opened.
    pub fn at_most(self, limit: Duration) -> Self {
        Self { honor: Honor::new(Settings { at_most: limit, ..self.honor.settings.clone() }) }
    }

    /// Opens the circuit on 503 responses only.
    pub fn only_unavailable(self) -> Self {
        Self { honor: Honor::new(Settings { on_throttled: false, ..self.honor.settings.clone() }) }
    }
}

/// The settings, and the hints that the responses have given.
///
/// Calls in flight are counted in two generations. The first response of a run that asks for a wait
/// begins a generation: the run is conclusive when the previous one has no calls left.
#[derive(Debug)]
struct Honor {
    settings: Settings,
    run: Arc<Run>,
    generations: [StripedArc<CallState>; 2],
}

/// What a call refers to.
#[derive(Debug)]
struct CallState {
    run: Arc<Run>,
    honor: Weak<Honor>,
}

/// The responses in succession that asked for a wait, times two, plus the generation in which calls
/// begin.
#[derive(Debug, Default)]
struct Run(AtomicU32);

impl Run {
    /// The length of the run and the current generation.
    fn load(&self) -> (u32, usize) {
        let word = self.0.load(Ordering::Acquire);
        (word >> 1, (word & 1) as usize)
    }

    /// Changes the word unless another response has changed it meanwhile. A lost change only delays
    /// the conclusion.
    fn try_change(&self, from: (u32, usize), to: (u32, usize)) {
        let pack = |(length, generation): (u32, usize)| length.min(u32::MAX >> 1) << 1 | generation as u32;
        let _ = self.0.compare_exchange(pack(from), pack(to), Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Honor {
    fn new(settings: Settings) -> Arc<Self> {
        Arc::new_cyclic(|honor| {
            let run = Arc::new(Run::default());
            let generation = || StripedArc::new(CallState { run: run.clone(), honor: honor.clone() });
            Self { settings, generations: [generation(), generation()], run }
        })
    }

    /// Returns how long the response asks all callers to wait.
    fn wait_of(&self, response: &impl ResponseHead) -> Option<Duration> {
        let applies = match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => true,
            StatusCode::TOO_MANY_REQUESTS => self.settings.on_throttled,
            _ => false,
        };
        let wait = if applies { hint::retry_after(response.headers()) } else { None };
        wait.filter(|wait| !wait.is_zero()).map(|wait| wait.min(self.settings.at_most))
    }

    /// Records a response that asks for a wait. The call that it belongs to is not in flight any
    /// more.
    #[cold]
    fn record(&self, wait: Duration) {
        let seen @ (length, generation) = self.run.load();
        let previous = 1 - generation;
        let is_alone = self.generations[previous].count_refs() == 0;
        match length {
            // Calls that begin from now on are counted in the other generation.
            0 if is_alone => self.run.try_change(seen, (1, previous)),
            // Calls from before the last run are still in flight, in the generation that is needed.
            0 => {}
            _ => {
                self.run.try_change(seen, (length.saturating_add(1), generation));
                if is_alone {
                    self.settings.breaker.honor_retry_after(wait);
                }
            }
        }
    }
}

impl CallState {
    /// Records a successful response. One load, unless a response before it asked for a wait.
    fn succeeded(&self) {
        let seen @ (length, generation) = self.run.load();
        if length > 0 {
            self.run.try_change(seen, (0, generation));
        }
    }
}

impl<S> Layer<S> for HonorRetryAfterLayer {
    type Service = HonorRetryAfter<S>;

    fn layer(&self, inner: S) -> HonorRetryAfter<S> {
        HonorRetryAfter { inner, honor: self.honor.clone() }
    }
}

/// Service made by [`HonorRetryAfterLayer`].
#[derive(Clone, Debug)]
pub struct HonorRetryAfter<S> {
    inner: S,
    honor: Arc<Honor>,
}

service_access!(HonorRetryAfter);

impl<S, Req> Service<Req> for HonorRetryAfter<S>
where
    S: Service<Req>,
    S::Response: ResponseHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HonorRetryAfterFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 read-modify-writes on this thread's reference count; one load here and one on success.
    fn call(&mut self, request: Req) -> Self::Future {
        let (_, generation) = self.honor.run.load();
        let call = self.honor.generations[generation].acquire_ref();
        HonorRetryAfterFuture { inner: self.inner.call(request), call: Some(InFlight { state: call }) }
    }
}

struct InFlight {
    state: StripedRef<CallState>,
}

pin_project! {
    /// Future of [`HonorRetryAfter`].
    pub struct HonorRetryAfterFuture<F> {
        #[pin]
        inner: F,
        // `None` once the call has completed.
        call: Option<InFlight>,
    }
}

impl<F, T, E> Future for HonorRetryAfterFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseHead,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(InFlight { state }) = this.call.take()
            && let Ok(response) = &result
        {
            if classify::verdict_for_status(response.status()) == Verdict::Success {
                state.succeeded();
            } else if let Some(honor) = state.honor.upgrade() {
                // The call is over: its own reference must not delay the conclusion.
                drop(state);
                if let Some(wait) = honor.wait_of(response) {
                    honor.record(wait);
                }
            }
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for HonorRetryAfterFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HonorRetryAfterFuture").finish_non_exhaustive()
    }
}
