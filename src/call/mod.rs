//! How a call borrows what it shares, is guarded, waits, and is cleaned up: written once, for layers and stacks.

mod guarded;
mod in_flight;
mod queued;
mod service;

pub(crate) use guarded::Guarded;
pub(crate) use in_flight::{CancelOnDrop, Complete, EventOnly, HasEvents, InFlight, emit_admitted};
pub(crate) use queued::{Acquisition, Queued};
pub(crate) use service::{CallFuture, CallService, Cancel, HasShared, Leaf, WithShared, response_future};
