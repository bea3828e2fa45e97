//! A small HTTP/1.1 server with scripted faults.
#![allow(unreachable_pub)] // a module of a test binary

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The fault that a request meets.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Reads the request and never responds.
    Hang,
    /// Reads the request and closes the connection.
    Close,
    /// Reads the request and resets the connection.
    CloseByReset,
    /// Sends the headers and part of the body, then hangs.
    HeadersThenHang,
    /// Sends the headers and part of the body, then resets the connection.
    ResetInBody,
    /// Sends the body one byte at a time, at this interval.
    Drip { bytes: usize, every: Duration },
    /// Responds with this status, these header lines and a body.
    Status(u16, &'static str),
    /// Responds with 200, then closes the connection without announcing it.
    OkThenClose,
}

/// A server whose first requests meet the given faults; the others get a 200.
#[derive(Clone)]
pub struct FaultServer {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl FaultServer {
    pub async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { faults: Mutex::new(faults.into_iter().collect()), ..State::default() });
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, SeqCst);
                let state = serving.clone();
                tokio::spawn(async move { state.serve(stream).await });
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Takes the requests received so far, head and body.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }
}

/// Returns an address without a listener: one that was free a moment ago.
pub async fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl State {
    async fn serve(&self, mut stream: TcpStream) {
        while let Some(request) = read_request(&mut stream).await {
            self.requests.lock().unwrap().push(request);
            let fault = self.faults.lock().unwrap().pop_front();
            // The client may have closed the connection.
            if self.respond(&mut stream, fault).await.is_none() {
                return;
            }
        }
    }

    /// Returns `None` once the connection is closed.
    async fn respond(&self, stream: &mut TcpStream, fault: Option<Fault>) -> Option<()> {
        match fault {
            None => send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Close) => None,
            Some(Fault::CloseByReset) => {
                stream.set_zero_linger().ok()?;
                None
            }
            Some(Fault::HeadersThenHang) => {
                send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await?;
                // Hold the connection until the client closes it.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                None
            }
            Some(Fault::ResetInBody) => {
                send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await?;
                // Wait until the client has read it: a reset discards data in flight.
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.set_zero_linger().ok()?;
                None
            }
            Some(Fault::Drip { bytes, every }) => {
                send(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")).await?;
                for _ in 0..bytes {
                    tokio::time::sleep(every).await;
                    send(stream, "x").await?;
                }
                Some(())
            }
            Some(Fault::Status(status, headers)) => {
                send(stream, &format!("HTTP/1.1 {status} Scripted\r\n{headers}content-length: 4\r\n\r\ntold")).await
            }
            Some(Fault::OkThenClose) => {
                send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await?;
                None
            }
        }
    }
}

async fn send(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()
}

/// Reads one request, head and body. Returns `None` once the connection is closed.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            let chunked = head.contains("transfer-encoding: chunked");
            let complete = if chunked { read.ends_with(b"0\r\n\r\n") } else { read.len() >= end + 4 + length };
            if complete {
                return Some(String::from_utf8_lossy(&read).into_owned());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}
