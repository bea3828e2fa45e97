use std::fmt;

use tower::util::BoxCloneSyncService;
use tower_rampart::{AsRejection, Rejection};

/// A user's request. All requests in the lab are idempotent: others would differ only in that
/// retries cannot help them.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The client that sends it.
    pub client: u32,
    /// The route, as an index into the plan's routes.
    pub route: u32,
}

/// A successful response.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// The server's work, in milliseconds.
    pub work: u64,
}

/// Any outcome other than a response.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection was refused.
    ConnectionRefused,
    /// The connection was closed before the response.
    ConnectionReset,
    /// The server's queue is full.
    QueueFull,
    /// The server failed, after this many milliseconds of work.
    Failed(u64),
    /// A layer of another library rejected the call or timed out.
    OtherLibrary {
        /// Whether it was a timeout rather than a rejection.
        timed_out: bool,
    },
    /// A layer of this library rejected the call or timed out.
    Rejected(Rejection),
}

impl Fault {
    /// Whether a layer rejected the call before it was attempted.
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Rejected(rejection) => !rejection.was_attempted(),
            Self::OtherLibrary { timed_out } => !timed_out,
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl AsRejection for Fault {
    fn as_rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

/// A service with its stack, as called by a user or by an upstream server.
pub type Client = BoxCloneSyncService<Request, Response, Fault>;
