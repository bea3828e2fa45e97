//! The services behind the gateway: real servers, whose instances can be killed and come back.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use crate::serve::Server;

/// An instance of a service.
pub struct Instance {
    pub service: &'static str,
    pub name: String,
    pub address: SocketAddr,
    state: Arc<Inside>,
    server: Mutex<Option<Server>>,
}

struct Inside {
    name: String,
    requests: AtomicU64,
    fails: AtomicBool,
}

impl Instance {
    /// Starts one on a free port.
    pub async fn start(service: &'static str, number: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let name = format!("{service}-{number}");
        let state = Arc::new(Inside { name: name.clone(), requests: AtomicU64::new(0), fails: AtomicBool::new(false) });
        let instance = Self { service, name, address: listener.local_addr()?, state, server: Mutex::new(None) };
        instance.serve(listener);
        Ok(instance)
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().route("/healthz", get(health)).fallback(answer).with_state(self.state.clone());
        *self.server.lock().unwrap() = Some(Server::start(listener, router));
    }

    /// Kills it: what it was doing ends in mid-air, and nobody listens any more.
    pub async fn kill(&self) {
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.kill().await;
        }
    }

    /// Starts it again, where it was.
    pub async fn revive(&self) -> std::io::Result<()> {
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    /// Has it answer everything with an error.
    pub fn fail(&self, fails: bool) {
        self.state.fails.store(fails, Relaxed);
    }

    /// Requests that it has taken, health checks aside.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }
}

async fn health(State(state): State<Arc<Inside>>) -> StatusCode {
    if state.fails.load(Relaxed) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

/// A little work, and an answer that tells what came in.
async fn answer(State(state): State<Arc<Inside>>, request: Request) -> Response {
    state.requests.fetch_add(1, Relaxed);
    tokio::time::sleep(Duration::from_millis(3)).await;
    if state.fails.load(Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = json!({
        "instance": state.name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "request_id": header("x-request-id"),
        "user": header("x-user"),
        "deadline": header("x-request-timeout-ms"),
    });
    ([("content-type", "application/json")], body.to_string()).into_response()
}
