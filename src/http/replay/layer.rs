use std::{
    sync::Arc,
    task::{Context, Poll},
};

use ::http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{body::ReplayBody, store::MemoryBudget};

/// Makes requests with streaming bodies retryable: records the body while it is sent, for a retry
/// inside.
///
/// The body becomes a [`ReplayBody`]. It is sent as it arrives, without waiting for its end, and it
/// is recorded only while a copy of the request exists that might be sent too. If the body turns
/// out longer than the limit, the recording is dropped: the request is sent once, and the caller
/// gets that attempt's result ([`HttpRepeat`](crate::http::HttpRepeat) checks for this). A body
/// without data costs nothing, and a body whose announced length exceeds the limit is not recorded
/// at all.
///
/// The default [`limit`](Self::limit) is 64 KiB of each body, and the default
/// [`total_limit`](Self::total_limit) 64 MiB of all bodies at once. A body that exceeds either is
/// sent once. The record takes at most 64 KiB more memory than its data, however short the frames
/// are, unless the body's own buffers are longer: a frame of 8 KiB or more keeps the buffer that it
/// is a part of.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{http::{HttpClassifier, HttpRepeat, ReplayLayer}, retry::Retry};
///
/// let retry = Retry::attempts("uploads", 3)?;
/// let layers = ServiceBuilder::new()
///     .layer(ReplayLayer::new())
///     .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()));
/// # let _ = layers;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReplayLayer {
    limit: usize,
    budget: Arc<MemoryBudget>,
}

impl ReplayLayer {
    /// Records up to 64 KiB of each body, and up to 64 MiB of all bodies.
    pub fn new() -> Self {
        Self { limit: 64 * 1024, budget: Arc::new(MemoryBudget::new(64 * 1024 * 1024)) }
    }

    /// Sets how many bytes of each body are recorded, trailers included. With zero, a request that
    /// has a body is sent once.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets how many bytes are recorded at once of all bodies in flight, of all services made with
    /// this layer and its later clones. A body takes them in steps of 8 KiB.
    pub fn total_limit(mut self, bytes: usize) -> Self {
        self.budget = Arc::new(MemoryBudget::new(bytes));
        self
    }
}

impl Default for ReplayLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Replay<S> {
        Replay { inner, layer: self.clone() }
    }
}

/// Service made by [`ReplayLayer`].
#[derive(Clone, Debug)]
pub struct Replay<S> {
    inner: S,
    layer: ReplayLayer,
}

service_access!(Replay);

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 3 allocations for a body with data.
    fn call(&mut self, request: Request<B>) -> S::Future {
        let mut request = request.map(|body| ReplayBody::new(body, self.layer.limit, &self.layer.budget));
        if let Some(status) = request.body().recording_status() {
            request.extensions_mut().insert(status);
        }
        self.inner.call(request)
    }
}
