//! Warnings about a default that does not fit the types it is used with.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::EventEmitter;

/// A default that does not fit.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Misfit {
    /// The default classifier, with HTTP responses.
    Classifier = 1,
    /// Cloned requests, with HTTP requests.
    Repeat = 2,
}

/// The misfits that were logged.
#[derive(Debug, Default)]
pub(super) struct Logged(AtomicU8);

/// A clone belongs to another handle.
impl Clone for Logged {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The most warnings of one process: a `PerKey` builds handles for as long as new keys arrive.
const MAX_WARNINGS: u32 = 100;

static WARNINGS: AtomicU32 = AtomicU32::new(0);

impl EventEmitter {
    /// Logs a warning, once per handle and at most 100 times in all.
    #[inline(never)]
    pub(crate) fn warn_once(&self, misfit: Misfit) {
        let bit = misfit as u8;
        let logged = &self.logged.0;
        if logged.load(Ordering::Relaxed) & bit != 0 || logged.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        if WARNINGS
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < MAX_WARNINGS).then_some(count + 1))
            .is_err()
        {
            return;
        }
        #[cfg(feature = "tracing")]
        {
            let (pattern, name) = (self.pattern.as_str(), self.name());
            match misfit {
                Misfit::Classifier => ::tracing::warn!(
                    target: "tower_rampart", pattern, %name,
                    "the default classifier counts every HTTP response as a success, a 500 too: \
                     use `.classify(tower_rampart::http::HttpClassifier::new())`"
                ),
                Misfit::Repeat => ::tracing::warn!(
                    target: "tower_rampart", pattern, %name,
                    "every failed HTTP request is retried, a POST too: \
                     use `.repeat(tower_rampart::http::HttpRepeat::new())`"
                ),
            }
        }
    }
}
