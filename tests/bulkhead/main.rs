//! The bulkhead: items K and G of the contract.

#[path = "../support/mod.rs"]
mod support;

mod handle;
mod idle;
mod layer;
