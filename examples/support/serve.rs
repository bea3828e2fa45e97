//! A server that can be killed like a process.

use axum::Router;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// A running server. Dropping it kills it.
pub struct Server(JoinHandle<()>);

impl Server {
    pub fn start(listener: TcpListener, router: Router) -> Self {
        Self(tokio::spawn(async move {
            // All connections are aborted with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // Broken connections are the client's concern.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
                while connections.try_join_next().is_some() {}
            }
        }))
    }

    /// Kills the server and aborts its requests. When this returns, its socket is closed.
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
