/// The behaviour of a retry whose service is not ready for the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenNotReady {
    /// Waits until it is ready, within the call's deadlines. At the earliest of them, the retry
    /// returns the error of the last attempt. If the last attempt failed with a response, see
    /// [`GiveUp`](Self::GiveUp).
    #[default]
    Wait,
    /// Stops retrying and returns the error of the last attempt. If the last attempt failed with a
    /// response, that response was dropped before the delay and there is no error to return, so the
    /// retry waits all the same.
    GiveUp,
}
