//! A bulkhead without Tower: at most two concurrent reports, and two more may wait briefly.
#![allow(missing_docs)]

use std::time::Duration;

use tower_rampart::{Error, adapt, bulkhead::Bulkhead};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bulkhead =
        Bulkhead::builder("reports").max_concurrent(2).max_wait(Duration::from_millis(150)).max_queue(2).build()?;

    let mut readers = tokio::task::JoinSet::new();
    for reader in 1..=6 {
        let bulkhead = bulkhead.clone();
        readers.spawn(async move {
            let report = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                tokio::fs::read_to_string("Cargo.toml").await
            };
            // `adapt` wraps `std::io::Error` in `Error<std::io::Error>`, which can also hold a
            // rejection.
            match bulkhead.run(adapt(report)).await {
                Ok(report) => format!("reader {reader}: {} lines", report.lines().count()),
                Err(Error::Rejected(rejection)) => format!("reader {reader}: {rejection}"),
                Err(Error::Service(error)) => format!("reader {reader}: {error}"),
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("in the meantime: {:?}", bulkhead.snapshot());
    while let Some(line) = readers.join_next().await {
        println!("{}", line?);
    }

    // Code that is not async can hold the permit itself.
    let permit = bulkhead.try_acquire()?;
    println!("in flight while the permit is held: {}", bulkhead.snapshot().in_flight);
    drop(permit);
    println!("in flight after its release: {}", bulkhead.snapshot().in_flight);
    Ok(())
}
