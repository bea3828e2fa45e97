//! The client stack.

mod builder;
mod service;
mod shared;
mod stack;

pub use builder::{ClientBuilder, client};
pub use service::ClientService;
pub use stack::ClientStack;

pub(super) use shared::ClientShared;
