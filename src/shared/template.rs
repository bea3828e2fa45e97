//! A service that is cloned when it is needed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes clones of a service that need not be `Sync`, for threads that share it.
///
/// Cloning is foreign code, which may use the same template, so it does not run under the lock: the
/// service is taken out meanwhile.
pub(crate) struct Template<S>(Mutex<Option<S>>);

impl<S> Template<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(Some(service)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clones the service. `None` while another call clones it: ask again later.
    pub(crate) fn try_clone(&self) -> Option<S>
    where
        S: Clone,
    {
        let service = self.lock().take();
        let taken = PutBack { template: self, service: Some(service?) };
        taken.service.clone()
    }
}

/// Puts the service back, even if cloning it panics.
struct PutBack<'a, S> {
    template: &'a Template<S>,
    service: Option<S>,
}

impl<S> Drop for PutBack<'_, S> {
    fn drop(&mut self) {
        *self.template.lock() = self.service.take();
    }
}
