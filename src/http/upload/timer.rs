use std::task::{Context, Poll};

use crate::shared::timer::Timer;

/// A timer that can be armed again, for another deadline.
#[derive(Default)]
pub(super) struct RearmableTimer {
    timer: Timer,
    /// Nanoseconds on the handles' timeline.
    deadline: Option<u64>,
}

impl RearmableTimer {
    pub(super) fn arm(&mut self, deadline: u64) {
        *self = Self { timer: Timer::default(), deadline: Some(deadline) };
    }

    pub(super) fn is_armed(&self) -> bool {
        self.deadline.is_some()
    }

    /// Ready once it is armed and the deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.map_or(Poll::Pending, |deadline| self.timer.poll(deadline, cx))
    }
}
