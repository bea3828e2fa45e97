//! What no interleaving breaks: loom runs each model in every order that its bounds allow.
//!
//! `RUSTFLAGS='--cfg rampart_loom' cargo test --release --lib --target-dir target/loom -- models`
//!
//! A model begins one step before the moment that matters, with words as small as they get (windows of three calls in
//! blocks of two, two buckets, two ways), and is explored in full; the one with three recorders of the time window with
//! at most three preemptions. That a model can fail is shown beside it: [`refuted`] runs it once more with a [`Fault`]
//! in all words, and expects it not to hold.
//!
//! loom does not explore everything that the memory model allows (a load does not see a store that is made later in
//! program order), and takes `SeqCst` for `AcqRel`; nothing here needs more than `AcqRel`.

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

/// Explores every interleaving of at most `preemptions`, or all.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// That the model does not hold with this fault.
pub(crate) fn refuted(fault: Fault, model: impl FnOnce()) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        // A fault is meant to end in a panic.
        std::panic::set_hook(Box::new(move |info| {
            if !any_fault() {
                loud(info);
            }
        }));
    });
    let outcome = with_fault(fault, || catch_unwind(AssertUnwindSafe(model)));
    assert!(outcome.is_err(), "the model holds with {fault:?} in it, so it shows nothing");
}

/// The test of a model, and the test that it can fail.
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
