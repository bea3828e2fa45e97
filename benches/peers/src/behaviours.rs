//! To be written.
pub fn print() {}
