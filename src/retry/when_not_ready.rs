/// The behaviour of a retry whose service is not ready for the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenNotReady {
    /// Waits until it is ready, within the call's deadlines. At the earliest of them, the retry returns the error of the
    /// last attempt. [`GiveUp`](Self::GiveUp) says what happens if that was not an error.
    #[default]
    Wait,
    /// Stops retrying and returns the error of the last attempt, if it was an error. A response that was classified as a
    /// failure was dropped before the delay, so in that case the retry waits all the same.
    GiveUp,
}
