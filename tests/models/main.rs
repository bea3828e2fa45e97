//! Model-based tests: long random sequences of operations on the public handles, compared with
//! simple reference models of lists and numbers.
//!
//! The state core has reference models of its own, next to its source. These tests cover what the
//! handles add: waiters and wakeups, dropped calls, configuration changes during calls, and events.

#[path = "../support/mod.rs"]
mod support;

mod budget;
mod bulkhead;
mod circuit;
mod limiter;
