//! The services behind the gateway: real servers whose instances can be killed and restarted.

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
    state: Arc<InstanceState>,
    server: Mutex<Option<Server>>,
}

struct InstanceState {
    name: String,
    requests: AtomicU64,
    fails: AtomicBool,
}

impl Instance {
    /// Starts an instance on a free port.
    pub async fn start(service: &'static str, number: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let name = format!("{service}-{number}");
        let state =
            Arc::new(InstanceState { name: name.clone(), requests: AtomicU64::new(0), fails: AtomicBool::new(false) });
        let instance = Self { service, name, address: listener.local_addr()?, state, server: Mutex::new(None) };
        instance.serve(listener);
        Ok(instance)
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().route("/healthz", get(health)).fallback(respond).with_state(self.state.clone());
        *self.server.lock().unwrap() = Some(Server::start(listener, router));
    }

    /// Kills the instance: its requests are aborted and its socket is closed.
    pub async fn kill(&self) {
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.kill().await;
        }
    }

    /// Restarts the instance at the same address.
    pub async fn revive(&self) -> std::io::Result<()> {
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    /// Sets whether the instance fails all requests.
    pub fn fail(&self, fails: bool) {
        self.state.fails.store(fails, Relaxed);
    }

    /// Returns the number of requests received, without health checks.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }
}

async fn health(State(state): State<Arc<InstanceState>>) -> StatusCode {
    if state.fails.load(Relaxed) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

/// Does a little work, and describes the request in the response.
async fn respond(State(state): State<Arc<InstanceState>>, request: Request) -> Response {
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
