use std::fmt;

use tower::util::BoxCloneSyncService;
use tower_rampart::{AsRejection, Rejection};

/// A request of a user, which may be repeated. All requests in the lab may: what is not idempotent differs in nothing
/// but that it cannot be helped.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which of the clients sends it.
    pub client: u32,
    /// By which route, as an index into the plan's.
    pub route: u32,
}

/// A good answer.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// The work it took the server, in milliseconds.
    pub work: u64,
}

/// Anything but a good answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection was refused.
    Refused,
    /// The connection broke.
    Reset,
    /// The server's queue is full.
    Busy,
    /// The server failed, after so many milliseconds of work.
    Failed(u64),
    /// A layer of some other library refused or gave up; `waited` if it was a time that had passed.
    Other {
        /// Whether a timeout said it, rather than a refusal.
        timed_out: bool,
    },
    /// A layer of this library refused or gave up.
    Rejected(Rejection),
}

impl Fault {
    /// Whether a layer refused a call that was not made.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Rejected(rejection) => !rejection.was_attempted(),
            Self::Other { timed_out } => !timed_out,
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

/// A service with its stack, as a user or an upstream server calls it.
pub type Client = BoxCloneSyncService<Request, Response, Fault>;
