//! How a call borrows the state it shares, holds a pattern's in-flight state, waits, and is
//! cancelled: written once, for layers and stacks.
//!
//! | file | contents |
//! |---|---|
//! | `service.rs` | [`CallService`] and [`CallFuture`]: services and calls that borrow; [`WithShared`]: a call with its owner |
//! | `leaf.rs` | [`Leaf`] and [`LeafCall`]: the innermost of them; [`RejectableLeaf`] and [`RejectCall`]: where several patterns share one call |
//! | `in_flight.rs` | [`InFlight`], [`Finish`] and [`Complete`]: a pattern's state of a call; [`CancelOnDrop`]: its guard |
//! | `panic_guard.rs` | [`StartingCall`], [`ServiceGuard`] and [`PanicGuard`]: tell a panic of the service from any other |
//! | `guarded.rs` | [`Guarded`]: a call with in-flight state; [`Rejectable`]: a future, or the rejection of its call |
//! | `queued.rs` | [`Queued`]: a call that may wait for its in-flight state |
//! | `classified.rs` | [`classify_result`]: how a result counts for a breaker or a retry |
//! | `optional.rs` | [`Optional`]: a pattern that may have been left out of a stack |

mod classified;
mod guarded;
mod in_flight;
mod leaf;
mod optional;
mod panic_guard;
mod queued;
mod service;

pub(crate) use classified::classify_result;
pub(crate) use guarded::{Guarded, Rejectable};
pub(crate) use in_flight::{CancelOnDrop, Complete, EventOnly, Finish, HasEvents, InFlight, emit_admitted};
pub(crate) use leaf::{Leaf, LeafCall, RejectCall, RejectableLeaf, RejectableLeafCall};
pub(crate) use optional::{Optional, Part, PatternService};
pub(crate) use panic_guard::{PanicGuard, ServiceGuard, StartingCall, complete};
pub(crate) use queued::{Acquisition, Queued};
pub(crate) use service::{CallFuture, CallService, Cancel, HasShared, WithShared, response_future};
