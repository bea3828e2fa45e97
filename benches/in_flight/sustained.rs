//! Many calls in flight at once, each in a task of its own, which makes the next one when it
//! completes.

use std::{
    fmt::Debug,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    task::yield_now,
    time::{sleep, timeout},
};
use tower::Service;

use crate::{
    held::{Gate, Held, Request, start},
    processor,
};

#[derive(Clone, Copy)]
pub(crate) struct Sustained {
    /// Resident bytes per task with its call in flight; tokio aligns tasks to 128 bytes. `None`
    /// where the system does not say.
    pub(crate) resident: Option<f64>,
    pub(crate) nanos_per_call: f64,
}

impl Sustained {
    /// Measures the named candidate in a process of its own, so that each sample has a fresh heap.
    pub(crate) fn measure(candidate: &str, in_flight: usize, time: Duration) -> Self {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["sustain", candidate, &in_flight.to_string(), &time.as_millis().to_string()])
            .output()
            .expect("the program can run itself");
        assert!(output.status.success(), "{candidate}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (resident, nanos) = text.trim().split_once(' ').expect("two figures");
        Self { resident: resident.parse().ok(), nanos_per_call: nanos.parse().unwrap() }
    }

    pub(crate) fn print(&self) {
        let resident = self.resident.map_or("unknown".to_owned(), |bytes| bytes.to_string());
        println!("{resident} {}", self.nanos_per_call);
    }

    /// Measures in this process.
    pub(crate) fn of<S, R>(make: impl Fn(Held) -> S, in_flight: usize, time: Duration) -> Self
    where
        S: Service<R, Response: Send, Error: Debug + Send, Future: Send> + Send + 'static,
        R: Request,
    {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new(in_flight);
            // The tasks share one service, so that a task's memory is that of its call.
            let service = Arc::new(Mutex::new(make(gate.service())));
            let before = resident();
            for _ in 0..in_flight {
                tokio::spawn(make_calls(Arc::clone(&service)));
            }
            // The gate releases a call when the last one has begun.
            wait_until(&gate, 1).await;
            let resident = resident().zip(before).map(|(after, before)| (after - before) / in_flight as f64);
            wait_until(&gate, 2 * in_flight as u64 + 1000).await;
            let (processor, started, first) = (processor::time_of_process(), Instant::now(), gate.releases());
            sleep(time).await;
            let (calls, elapsed) = (gate.releases() - first, started.elapsed());
            let used = processor::time_of_process().zip(processor).map_or(elapsed, |(after, before)| after - before);
            Self { resident, nanos_per_call: used.as_nanos() as f64 / calls as f64 }
        })
    }
}

async fn make_calls<S: Service<R, Error: Debug>, R: Request>(service: Arc<Mutex<S>>) {
    loop {
        let started = || start(&mut *service.lock().unwrap());
        started().await.unwrap();
    }
}

async fn wait_until(gate: &Gate, releases: u64) {
    let wait = async {
        while gate.releases() < releases {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.expect("the calls run");
}

/// Returns this process's resident memory in bytes.
fn resident() -> Option<f64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024.0)
}
