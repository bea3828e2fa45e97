//! Timers of calls.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Instant, Sleep},
};

/// A timer that is armed once its call is pending. It is exempt from tokio's cooperative budget: an
/// inner future that exhausts the budget at each poll would starve it.
pub(crate) trait Timer: Default {
    fn arm(self: Pin<&mut Self>, deadline: Instant);

    /// Ready once it is armed and the deadline has passed.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    fn armed_for(&self) -> Option<Instant>;
}

pin_project! {
    /// A timer inside the call, for nearly every call that is not ready immediately.
    #[derive(Default)]
    pub(crate) struct Inline {
        #[pin]
        sleep: Option<Unconstrained<Sleep>>,
        // `Unconstrained` does not expose it.
        deadline: Option<Instant>,
    }
}

impl Timer for Inline {
    fn arm(self: Pin<&mut Self>, deadline: Instant) {
        let mut this = self.project();
        this.sleep.set(Some(unconstrained(tokio::time::sleep_until(deadline))));
        *this.deadline = Some(deadline);
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }

    fn armed_for(&self) -> Option<Instant> {
        self.deadline
    }
}

/// A timer for calls that rarely arm one, because an inner timer wakes the task earlier. Allocated
/// when it is armed, which makes all calls smaller.
#[derive(Default)]
pub(crate) struct Boxed(Option<Pin<Box<Inline>>>);

impl Timer for Boxed {
    #[cold]
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.get_or_insert_default().as_mut().arm(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn armed_for(&self) -> Option<Instant> {
        self.0.as_ref()?.armed_for()
    }
}
