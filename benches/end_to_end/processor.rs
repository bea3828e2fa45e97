//! The processor time that this process uses: other processes on the machine do not add to it.

use std::{fs, time::Duration};

/// Returns the time for which this process's threads have run, once they are idle. `None` where the
/// system does not say.
pub(crate) async fn time_used() -> Option<Duration> {
    // Linux adds the time of a running thread when it stops, or at the next tick.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut nanos = 0;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let statistics = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += statistics.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}
