//! Guides: one page per client and server, showing how to wrap it.

pub mod axum_server;
pub mod hyper_client;
pub mod hyper_server;
pub mod reqwest_client;
pub mod tonic_client;
pub mod tonic_server;
