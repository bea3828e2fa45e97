//! The simulated users.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    measure::{Answer, Recorder, Route},
    options::{Options, PATIENCE},
    system::{self, System},
};

/// The most attempts per user, and the pause before a retry.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Starts users in an open loop until the end of the run, and waits for the last ones.
pub async fn users(options: &Options, system: &System, recorder: &Recorder) {
    let mut random = SmallRng::seed_from_u64(options.seed);
    let client = system::http_client();
    let start = Instant::now();
    let end = start + options.phases().end;
    let mut arrival = start;
    let mut users = JoinSet::new();
    loop {
        // A Poisson process has exponential gaps.
        let gap = -(1.0 - random.random::<f64>()).ln() / f64::from(options.rate);
        arrival += Duration::from_secs_f64(gap);
        if arrival >= end {
            break;
        }
        let route = if random.random_ratio(3, 8) { Route::Checkout } else { Route::Catalog };
        tokio::time::sleep_until(arrival).await;
        let (client, edge, recorder) = (client.clone(), system.edge, recorder.clone());
        users.spawn(async move {
            for attempt in 1..=ATTEMPTS {
                let started = Instant::now();
                let guard = recorder.arrive();
                let answer = tokio::time::timeout(PATIENCE, system::get(client.clone(), edge, route.path())).await;
                let answer = match answer {
                    Ok(Ok(reply)) if reply.status.is_success() && reply.degraded => Answer::Degraded,
                    Ok(Ok(reply)) if reply.status.is_success() => Answer::Served,
                    Ok(_) => Answer::Error,
                    Err(_) => Answer::TimedOut,
                };
                drop(guard);
                recorder.record(route, attempt, started, answer);
                if matches!(answer, Answer::Served | Answer::Degraded) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        while users.try_join_next().is_some() {}
    }
    // Users that still wait count toward the run; their later attempts do not.
    let _ = tokio::time::timeout(PATIENCE, async { while users.join_next().await.is_some() {} }).await;
    users.shutdown().await;
}
