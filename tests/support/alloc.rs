//! Counts allocations. Only a test binary that uses this module gets the counting allocator.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::Service;

/// Asserts that calls to a ready service allocate nothing from the second one on, and returns the
/// result of the first.
///
/// The first call may allocate: a handle then creates its state for this thread.
#[track_caller]
pub(crate) fn assert_calls_allocate_nothing<S, Req>(mut service: S, request: Req) -> Result<S::Response, S::Error>
where
    S: Service<Req>,
    Req: Clone,
{
    let mut call = || {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(ready) = service.poll_ready(&mut cx) else { panic!("not ready") };
        ready?;
        match pin!(service.call(request.clone())).poll(&mut cx) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("pending"),
        }
    };
    let result = call();
    let counted = allocation_counter::measure(|| (0..100).for_each(|_| drop(call())));
    assert_eq!(counted.count_total, 0, "{} allocations in 100 calls", counted.count_total);
    result
}
