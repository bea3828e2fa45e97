//! Futures of [`BulkheadService`](super::BulkheadService).

use super::inner::{Acquire, Call, Inner};
use crate::{
    guarded::{deferred_future, guarded_future},
    hold::Hold,
};

guarded_future! {
    /// A call that was let in, or refused.
    ///
    /// The permit comes home when the call ends or when the future is dropped, whichever is first.
    ResponseFuture under Call<Hold<Inner>>
}

deferred_future! {
    /// A call that waits for its permit first, if it has to.
    ///
    /// Dropping it while it waits leaves the queue; the request was never sent.
    WaitFuture waits in Acquire<Hold<Inner>>, under Call<Hold<Inner>>
}
