//! How long a call has waited for its caller.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use crate::{deadline::NEVER, state::time::nanos_of};

/// The limits of a call's waits for its caller, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitLimits {
    pub(super) idle: u64,
    pub(super) total: u64,
}

impl WaitLimits {
    pub(super) fn new(idle: Duration, total: Duration) -> Self {
        Self { idle: nanos_of(idle), total: nanos_of(total) }
    }
}

/// The waits of one call for its request's body, shared by the body and the call. Points in time
/// are nanoseconds on the handles' timeline.
///
/// The body records its waits; the call's clock stands still meanwhile. Both limits bound by how
/// much: a body that is not polled any more cannot stop the clock permanently.
pub(super) struct Waits {
    limits: WaitLimits,
    state: Mutex<WaitState>,
}

struct WaitState {
    /// The sum of the waits that have ended.
    waited: u64,
    /// The start of the current wait, or [`NEVER`].
    since: u64,
    /// Wakes the call when the current wait ends.
    call: Option<Waker>,
}

impl Waits {
    pub(super) fn new(limits: WaitLimits) -> Self {
        Self { limits, state: Mutex::new(WaitState { waited: 0, since: NEVER, call: None }) }
    }

    /// The longest time for which the clock stands still, in nanoseconds.
    pub(super) fn longest(&self) -> u64 {
        self.limits.total
    }

    fn lock(&self) -> MutexGuard<'_, WaitState> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a wait. Returns for how long it may last, and whether the total decides that.
    pub(super) fn start(&self, now: u64) -> (u64, bool) {
        let mut state = self.lock();
        state.since = now;
        let left = self.limits.total.saturating_sub(state.waited);
        (left.min(self.limits.idle), left < self.limits.idle)
    }

    pub(super) fn end(&self, now: u64) {
        let mut state = self.lock();
        state.waited = state.waited.saturating_add(now.saturating_sub(state.since));
        state.since = NEVER;
        let call = state.call.take();
        drop(state);
        if let Some(call) = call {
            call.wake();
        }
    }

    /// For how long the clock of the call has stood still.
    pub(super) fn paused(&self, now: u64) -> u64 {
        self.limits.paused(&self.lock(), now)
    }

    /// If the body is waiting, registers the call to be woken when the wait ends, and returns for
    /// how long the clock will have stood still if the wait lasts as long as it may.
    pub(super) fn register(&self, call: Waker) -> Option<u64> {
        let mut state = self.lock();
        if state.since == NEVER {
            drop(state);
            drop(call);
            return None;
        }
        let replaced = state.call.replace(call);
        let paused = state.waited.saturating_add(self.limits.idle).min(self.limits.total);
        drop(state);
        drop(replaced);
        Some(paused)
    }
}

impl WaitLimits {
    fn paused(&self, state: &WaitState, now: u64) -> u64 {
        let current = if state.since == NEVER { 0 } else { now.saturating_sub(state.since).min(self.idle) };
        state.waited.saturating_add(current).min(self.total)
    }
}
