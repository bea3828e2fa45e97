//! Time limits for requests whose bodies their callers are still sending.

mod body;
mod future;
mod layer;
mod timer;
mod waits;

pub use body::{UploadBody, UploadError};
pub use future::UploadTimeoutFuture;
pub use layer::{UploadTimeout, UploadTimeoutLayer};
