//! Users who ask for something all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::task::JoinSet;

/// What users got.
#[derive(Default)]
pub struct Tally {
    pub good: AtomicU64,
    pub failed: AtomicU64,
}

/// A load that runs until it is told to stop.
pub struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    users: JoinSet<()>,
}

impl Load {
    /// So many users at once, each asking for one of these URLs after the other, `pause` after each answer. None of them
    /// asks so often that the gateway's limit of 100 a minute concerns them: after 90 requests another takes the place.
    pub fn start(urls: Vec<String>, users: usize, pause: Duration) -> Self {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let client = reqwest::Client::new();
        let mut tasks = JoinSet::new();
        for place in 0..users {
            let (tally, stop, client, urls) = (tally.clone(), stop.clone(), client.clone(), urls.clone());
            tasks.spawn(async move {
                for request in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let token = format!("user-{place}-{}", request / 90);
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

    /// Waits until so many more requests have been answered.
    pub async fn more(&self, requests: u64) {
        let answered = || self.tally.good.load(Relaxed) + self.tally.failed.load(Relaxed);
        let until = answered() + requests;
        while answered() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends it, and tells what the users got.
    pub async fn stop(mut self) -> Arc<Tally> {
        self.stop.store(true, Relaxed);
        while self.users.join_next().await.is_some() {}
        self.tally
    }
}
