//! Resilience middleware for Tower.
#![allow(dead_code)]

mod state;
