//! Futures of [`RateLimitService`](super::RateLimitService).

use super::inner::{Call, Inner, Pace};
use crate::{
    guarded::{deferred_future, guarded_future},
    hold::Hold,
};

guarded_future! {
    /// A call that was let in, or refused.
    ///
    /// Its tokens are spent, however it ends.
    ResponseFuture under Call<Hold<Inner>>
}

deferred_future! {
    /// A call that waits for its tokens first, if it has to.
    ///
    /// Dropping it while it waits gives the tokens back; the request was never sent.
    WaitFuture waits in Pace<Hold<Inner>>, under Call<Hold<Inner>>
}
