//! Models of the invariants: loom runs each one in every interleaving within its bounds.
//!
//! `RUSTFLAGS='--cfg rampart_loom' cargo test --release --lib --target-dir target/loom -- models`
//!
//! A model begins one step before the critical moment, with the smallest structures (windows of
//! three calls in blocks of two, two buckets, two ways), and is explored exhaustively; only the
//! model with three recorders of the time window is limited to three preemptions. Each model also
//! has a test that it can fail: [`refuted`] runs it with a [`Fault`] in all words, and expects it
//! not to hold.
//!
//! loom does not explore everything that the memory model allows (a load does not see a store that
//! comes later in program order), and treats `SeqCst` as `AcqRel`; nothing here needs more than
//! `AcqRel`.

mod budget;
mod circuit;
mod count;
mod gcra;
mod keyed;
mod permits;
mod time;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use super::atomics::{Fault, any_fault, with_fault};

/// Explores all interleavings, or those with at most `preemptions`.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// Asserts that the model does not hold with this fault.
pub(crate) fn refuted(fault: Fault, model: impl FnOnce()) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let default_hook = std::panic::take_hook();
        // With a fault, the panic is expected.
        std::panic::set_hook(Box::new(move |info| {
            if !any_fault() {
                default_hook(info);
            }
        }));
    });
    let outcome = with_fault(fault, || catch_unwind(AssertUnwindSafe(model)));
    assert!(outcome.is_err(), "the model holds with {fault:?}, so it proves nothing");
}

/// Defines the test of a model, and the test that it can fail.
macro_rules! model {
    ($(#[$doc:meta])* $name:ident, preemptions: $bound:expr, refuted by [$($fault:ident),+], $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn model() {
                crate::state::models::explore($bound, || $body);
            }

            $(#[$doc])*
            #[test]
            fn holds() {
                model();
            }

            #[test]
            fn can_fail() {
                $(crate::state::models::refuted(crate::state::atomics::Fault::$fault, model);)+
            }
        }
    };
}

pub(crate) use model;
