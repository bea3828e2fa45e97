//! What services have that can be taken apart: access to the one within.

macro_rules! service_access {
    ($service:ident $(, $param:ident)*) => {
        impl<S $(, $param)*> $service<S $(, $param)*> {
            /// The service within.
            pub fn get_ref(&self) -> &S {
                &self.inner
            }

            /// The service within, mutably.
            pub fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// Takes the service out again.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }
    };
}
