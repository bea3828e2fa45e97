//! The processor time that this process uses: other processes on the machine do not add to it.
#![allow(unreachable_pub)] // shared by benches, as modules
#![allow(dead_code)] // no benchmark uses all of it

use std::{fs, path::Path, thread, time::Duration};

/// Returns the time for which this process's threads have run. The others must be about to become
/// idle. `None` where the system does not say.
pub fn time_of_process() -> Option<Duration> {
    settle(Duration::from_millis(2));
    fs::read_dir("/proc/self/task").ok()?.map(|thread| time_of(&thread.ok()?.path())).sum()
}

/// Returns the time for which this thread has run. `None` where the system does not say.
pub fn time_of_thread() -> Option<Duration> {
    settle(Duration::from_micros(200));
    time_of(Path::new("/proc/thread-self"))
}

/// Linux adds the time of a running thread when it stops, or at the next tick.
fn settle(pause: Duration) {
    thread::sleep(pause);
}

fn time_of(thread: &Path) -> Option<Duration> {
    let statistics = fs::read_to_string(thread.join("schedstat")).ok()?;
    statistics.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
