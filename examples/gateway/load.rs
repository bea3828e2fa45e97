//! Users who send requests continuously.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::task::JoinSet;

/// The results that users got.
#[derive(Default)]
pub struct Tally {
    pub good: AtomicU64,
    pub failed: AtomicU64,
}

/// A load that runs until it is stopped.
pub struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    users: JoinSet<()>,
}

impl Load {
    /// Starts this many concurrent users, each of which requests one of these URLs after the other
    /// and pauses after each response. To stay below the gateway's limit of 100 a minute, each user
    /// is replaced by another after 90 requests.
    pub fn start(urls: Vec<String>, users: usize, pause: Duration) -> Self {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let client = reqwest::Client::new();
        let mut tasks = JoinSet::new();
        for slot in 0..users {
            let (tally, stop, client, urls) = (tally.clone(), stop.clone(), client.clone(), urls.clone());
            tasks.spawn(async move {
                for request in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let token = format!("user-{slot}-{}", request / 90);
                    let response = client.get(&urls[request % urls.len()]).bearer_auth(token).send().await;
                    match response {
                        Ok(response) if response.status().is_success() => tally.good.fetch_add(1, Relaxed),
                        Ok(response) => {
                            eprintln!(
                                "a user got {}: {}",
                                response.status(),
                                response.text().await.unwrap_or_default()
                            );
                            tally.failed.fetch_add(1, Relaxed)
                        }
                        Err(error) => {
                            eprintln!("a user got {error}");
                            tally.failed.fetch_add(1, Relaxed)
                        }
                    };
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { tally, stop, users: tasks }
    }

    /// Waits until this many more requests have been answered.
    pub async fn more(&self, requests: u64) {
        let answered = || self.tally.good.load(Relaxed) + self.tally.failed.load(Relaxed);
        let until = answered() + requests;
        while answered() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops the load, and returns the results.
    pub async fn stop(mut self) -> Arc<Tally> {
        self.stop.store(true, Relaxed);
        while self.users.join_next().await.is_some() {}
        self.tally
    }
}
