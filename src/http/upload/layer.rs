use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::UploadBody,
    future::{Attempt, UploadTimeoutFuture},
    waits::{WaitLimits, Waits},
};
use crate::{
    clock, deadline,
    error::FromRejection,
    timeout::{Expired, Timeout},
};

/// An attempt timeout that does not count the time in which the attempt waits for its caller.
///
/// In a proxy or gateway, a request's body is the upload of a remote client, who may send it as
/// slowly as he likes. Under a plain timeout, his slowness looks like the dependency's: attempts
/// time out, and anyone who can send a request can open the circuit for everyone. This layer takes
/// the place of the attempt timeout, and times the two apart:
///
/// - The attempt has the limit of the [`Timeout`] that the layer is made with. Its clock stands
///   still while the body is polled and has nothing to send. It runs while the body has data and
///   the dependency does not take it.
/// - A wait for the caller has an [`idle`](Self::idle) limit, and all waits of an attempt together
///   have a [`total`](Self::total) limit. When one passes, the body fails with an [`UploadError`],
///   which ends the attempt.
///
/// So an attempt holds its permit for at most its own limit and the total limit. If the attempt's
/// limit passes, it is rejected with [`Rejection::TimedOut`](crate::Rejection::TimedOut), and a
/// breaker outside counts a failure.
///
/// # Defaults
///
/// | setting | default | why |
/// |---|---|---|
/// | idle | 10 s | a mobile client may lose its network for some seconds |
/// | total | 5 min | 20 MB at half a megabit per second |
///
/// The layer is not the default, since requests whose bodies are in memory need no second clock,
/// and the ready-made stacks know nothing of bodies. A stack's own attempt timeout counts all of
/// the time: switch it off where this layer is used.
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_rampart::{
///     bulkhead::Bulkhead, circuit_breaker::CircuitBreaker,
///     http::{HttpClassifier, UploadTimeoutLayer},
///     timeout::Timeout,
/// };
///
/// let attempt = Timeout::new("storage.attempt", Duration::from_secs(2));
/// let layers = ServiceBuilder::new()
///     .layer(CircuitBreaker::new("storage").layer().classify(HttpClassifier::new()))
///     .layer(Bulkhead::new("storage", 64)?.layer())
///     .layer(UploadTimeoutLayer::new(&attempt).idle(Duration::from_secs(5)).total(Duration::from_secs(60)));
/// # let _ = layers;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
///
/// # Deadlines
///
/// Inside, the [`deadline`] of a request with a body is the time at which the attempt ends at the
/// latest, waits included: a service that receives it does not time out while the caller is
/// sending.
///
/// [`UploadError`]: super::UploadError
#[derive(Clone, Debug)]
pub struct UploadTimeoutLayer {
    attempt: Timeout,
    waits: WaitLimits,
}

impl UploadTimeoutLayer {
    /// Limits attempts to the limit of `attempt`.
    pub fn new(attempt: &Timeout) -> Self {
        let waits = WaitLimits::new(Duration::from_secs(10), Duration::from_secs(300));
        Self { attempt: attempt.clone(), waits }
    }

    /// Sets how long an attempt waits for the next piece of the body. With zero, a body that is not
    /// ready fails when it is polled.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.waits = WaitLimits { idle: WaitLimits::new(limit, limit).idle, ..self.waits };
        self
    }

    /// Sets how long an attempt waits for its body in total.
    pub fn total(mut self, limit: Duration) -> Self {
        self.waits = WaitLimits { total: WaitLimits::new(limit, limit).total, ..self.waits };
        self
    }
}

impl<S> Layer<S> for UploadTimeoutLayer {
    type Service = UploadTimeout<S>;

    fn layer(&self, inner: S) -> UploadTimeout<S> {
        UploadTimeout { inner, layer: self.clone() }
    }
}

/// Service made by [`UploadTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct UploadTimeout<S> {
    inner: S,
    layer: UploadTimeoutLayer,
}

service_access!(UploadTimeout);

impl<S, B> Service<Request<B>> for UploadTimeout<S>
where
    S: Service<Request<UploadBody<B>>>,
    S::Error: FromRejection,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = UploadTimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 1 clock read, and 1 allocation for a request with a body.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let attempt = &self.layer.attempt;
        let (now, limit, outer) = (clock::nanos(), attempt.0.limit(), deadline::unenforced());
        if outer <= now {
            return UploadTimeoutFuture::rejected(attempt.reject_expired(attempt.limit(), Expired::OuterBeforeCall));
        }
        let has_body = !request.body().is_end_stream();
        let waits = has_body.then(|| Arc::new(Waits::new(self.layer.waits)));
        let request = request.map(|body| UploadBody::new(body, waits.clone()));
        let starting = Attempt::new(attempt.clone(), now, limit, outer, waits);
        let inner = &mut self.inner;
        let call = match clock::instant_of(starting.latest()) {
            Some(at) => deadline::within(at, || inner.call(request)),
            None => inner.call(request),
        };
        starting.started(call)
    }
}
