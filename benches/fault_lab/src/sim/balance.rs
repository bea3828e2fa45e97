use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tower::Service;

use super::{Fault, Request, Response};

/// A client-side balancer: picks the ready instance with the fewest requests in flight, and breaks
/// ties at random.
#[derive(Clone)]
pub struct Balance<S> {
    endpoints: Arc<[(S, AtomicU32)]>,
    rng: Arc<Mutex<SmallRng>>,
}

impl<S> Balance<S> {
    /// Balances between these endpoints.
    pub fn new(endpoints: Vec<S>, seed: u64) -> Self {
        let endpoints = endpoints.into_iter().map(|endpoint| (endpoint, AtomicU32::new(0))).collect();
        Self { endpoints, rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))) }
    }

    /// The least loaded endpoint that has not been skipped.
    fn least_loaded(&self, skipped: &[usize]) -> Option<usize> {
        let first = self.rng.lock().unwrap().random_range(0..self.endpoints.len());
        let in_turn = (0..self.endpoints.len()).map(|offset| (first + offset) % self.endpoints.len());
        in_turn
            .filter(|index| !skipped.contains(index))
            .min_by_key(|index| self.endpoints[*index].1.load(Ordering::Relaxed))
    }
}

impl<S> Service<Request> for Balance<S>
where
    S: Service<Request, Response = Response, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    type Response = Response;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut skipped = Vec::new();
            let (index, mut service) = loop {
                // When no endpoint is ready, wait for one of them.
                let next = this.least_loaded(&skipped);
                let index = next.or_else(|| this.least_loaded(&[])).expect("there are instances");
                let mut service = this.endpoints[index].0.clone();
                let readiness = poll_fn(|cx| match service.poll_ready(cx) {
                    Poll::Pending if next.is_some() => Poll::Ready(None),
                    other => other.map(Some),
                });
                if let Some(ready) = readiness.await {
                    ready?;
                    break (index, service);
                }
                skipped.push(index);
            };
            let _in_flight = InFlight::new(&this.endpoints[index].1);
            service.call(request).await
        })
    }
}

struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
