//! The processor time that this process uses: other processes on the machine do not add to it.
#![allow(unreachable_pub)] // shared by benches, as modules

use std::{fs, thread, time::Duration};

/// Returns the time for which this process's threads have run. They must be idle. `None` where the
/// system does not say.
pub fn time_used() -> Option<Duration> {
    // Linux adds the time of a running thread when it stops, or at the next tick.
    thread::sleep(Duration::from_millis(2));
    let mut nanos = 0;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let statistics = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += statistics.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}
