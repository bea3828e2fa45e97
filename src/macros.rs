//! Boilerplate that every pattern shares.

/// Access to the inner service: `service_access!(Service<S, A, B: ?Sized>, path.to.inner)`,
/// `service_access!(Service, A)` for a field `inner`, or `service_access!(ref ..)` for an inner
/// service that must not be changed.
macro_rules! service_access {
    (ref $service:ident<S $(, $param:ident $(: ?$bound:ident)?)*>, $($inner:tt).+) => {
        impl<S $(, $param $(: ?$bound)?)*> $service<S $(, $param)*> {
            /// Returns the inner service.
            pub fn get_ref(&self) -> &S {
                &self.$($inner).+
            }

            /// Unwraps the inner service.
            pub fn into_inner(self) -> S {
                self.$($inner).+
            }
        }
    };
    ($service:ident<S $(, $param:ident $(: ?$bound:ident)?)*>, $($inner:tt).+) => {
        service_access!(ref $service<S $(, $param $(: ?$bound)?)*>, $($inner).+);

        impl<S $(, $param $(: ?$bound)?)*> $service<S $(, $param)*> {
            /// Returns the inner service, mutably.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.$($inner).+
            }
        }
    };
    ($service:ident $(, $param:ident)*) => {
        service_access!($service<S $(, $param)*>, inner);
    };
}

/// A builder's setter of its field `observer`, with further sentences for its docs.
macro_rules! observer_setter {
    ($($more:literal)*) => {
        /// Sets the observer that receives this handle's events.
        $(#[doc = $more])*
        pub fn observer(mut self, observer: impl $crate::event::Observer) -> Self {
            self.observer = Some(std::sync::Arc::new(observer));
            self
        }
    };
}

/// A builder's setter of its field `time`, with further sentences for its docs.
macro_rules! clock_setter {
    ($($more:literal)*) => {
        /// Sets the clock, in place of tokio's.
        $(#[doc = $more])*
        pub fn clock(mut self, clock: impl $crate::clock::Clock) -> Self {
            self.time = $crate::clock::TimeSource::custom(clock);
            self
        }
    };
}
