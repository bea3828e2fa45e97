//! The server stack.

mod builder;
mod service;
mod stack;

pub use builder::{ServerBuilder, server};
pub use service::ServerService;
pub use stack::ServerStack;
