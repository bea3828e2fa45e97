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

/// A client's own balancing: the instance with the fewest requests in flight of those that are ready, by chance among equals.
#[derive(Clone)]
pub struct Balance<S> {
    ends: Arc<[(S, AtomicU32)]>,
    rng: Arc<Mutex<SmallRng>>,
}

impl<S> Balance<S> {
    /// Between these.
    pub fn new(ends: Vec<S>, seed: u64) -> Self {
        let ends = ends.into_iter().map(|end| (end, AtomicU32::new(0))).collect();
        Self { ends, rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))) }
    }

    /// The least loaded of those that have not been passed over.
    fn least_loaded(&self, passed: &[usize]) -> Option<usize> {
        let first = self.rng.lock().unwrap().random_range(0..self.ends.len());
        let in_turn = (0..self.ends.len()).map(|offset| (first + offset) % self.ends.len());
        in_turn.filter(|end| !passed.contains(end)).min_by_key(|end| self.ends[*end].1.load(Ordering::Relaxed))
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
            let mut passed = Vec::new();
            let (end, mut service) = loop {
                // When none is ready, one of them is waited for.
                let next = this.least_loaded(&passed);
                let end = next.or_else(|| this.least_loaded(&[])).expect("there are instances");
                let mut service = this.ends[end].0.clone();
                let readiness = poll_fn(|cx| match service.poll_ready(cx) {
                    Poll::Pending if next.is_some() => Poll::Ready(None),
                    other => other.map(Some),
                });
                if let Some(ready) = readiness.await {
                    ready?;
                    break (end, service);
                }
                passed.push(end);
            };
            let _flight = Flight::new(&this.ends[end].1);
            service.call(request).await
        })
    }
}

struct Flight<'a>(&'a AtomicU32);

impl<'a> Flight<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
