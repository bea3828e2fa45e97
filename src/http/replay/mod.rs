//! Streaming request bodies, recorded while they are sent so that a retry can replay them.

mod body;
mod layer;
mod recording;
mod store;

pub use body::{ReplayBody, ReplayError};
pub use layer::{Replay, ReplayLayer};
pub(super) use recording::RecordingStatus;
