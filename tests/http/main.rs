//! The `http` module: in memory, and over real sockets (`sockets`, `served`).

#[path = "../support/faults.rs"]
mod faults;
#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod classify;
mod deadlines;
#[macro_use]
mod full_response;
mod body_ends;
mod covered_servers;
mod hints;
mod origins;
mod parsers;
mod repeat;
mod served;
mod servers;
mod snippets;
mod sockets;
mod uploads;

use std::time::Duration;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A response with this status and these headers.
fn response(status: u16, headers: &[(&str, &str)]) -> http::Response<()> {
    let builder = http::Response::builder().status(status);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
}
