//! The fault lab: measures resilience stacks in simulated incidents, and shows how this crate's
//! defaults were chosen.
//!
//! [`sim`] is the simulator, [`scenarios`] are the incidents, [`stacks`] the protections that are
//! compared, and [`measure`] computes figures from a run's record. `sim` knows only the trait that
//! a stack implements. `cargo run --release -p fault_lab` prints all tables and writes a page with
//! charts.

pub mod charts;
pub mod jobs;
pub mod measure;
pub mod report;
pub mod scenarios;
pub mod sim;
pub mod stacks;
pub mod sweep;
pub mod table;
