//! A server that can be killed, as a process can.

use axum::Router;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// A server at work. Dropped, it is killed.
pub struct Server(JoinHandle<()>);

impl Server {
    pub fn start(listener: TcpListener, router: Router) -> Self {
        Self(tokio::spawn(async move {
            // With this task, all connections end.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A connection that breaks is its client's to deal with.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
                while connections.try_join_next().is_some() {}
            }
        }))
    }

    /// Kills it: what it was doing ends in mid-air. When this returns, nobody listens any more.
    pub async fn kill(mut self) {
        self.0.abort();
        drop((&mut self.0).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}
