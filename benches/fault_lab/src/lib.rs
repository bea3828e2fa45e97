//! The fault lab: what resilience stacks are worth when systems fall, and where this crate's defaults come from.
//!
//! [`sim`] is the laboratory, [`scenarios`] are what befalls systems, [`stacks`] what protects them, [`measure`] what is
//! made of a run. `cargo run --release -p fault_lab` prints the table of all and writes a page with charts.

pub mod charts;
pub mod jobs;
pub mod measure;
pub mod report;
pub mod scenarios;
pub mod sim;
pub mod stacks;
pub mod sweep;
pub mod table;
