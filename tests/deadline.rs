//! The deadline around a call, as code inside sees it: items T13 and T14 of the contract.
//! `timeout.rs` tests its enforcement.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::{future::Future, pin::Pin, time::Duration};

use proptest::prelude::*;
use support::{BoxError, paused};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower_rampart::{
    deadline::{self, scope},
    timeout::Timeout,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn remaining_is_none_without_a_deadline_and_zero_after_it() {
    assert_eq!((deadline::current(), deadline::remaining()), (None, None));
    let at = Instant::now();
    advance(ms(5)).await;
    let seen = scope(at, async { (deadline::current(), deadline::remaining()) }).await;
    assert_eq!(seen, (Some(at), Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_nested_scope_can_only_shorten_the_deadline() {
    let (near, far) = (Instant::now() + ms(10), Instant::now() + ms(20));
    scope(near, async {
        assert_eq!(scope(far, async { deadline::current() }).await, Some(near));
        assert_eq!(deadline::current(), Some(near));
    })
    .await;
    scope(far, async {
        assert_eq!(scope(near, async { deadline::current() }).await, Some(near));
        assert_eq!(deadline::current(), Some(far), "the inner scope has ended");
    })
    .await;
    assert_eq!(deadline::current(), None);
}

// A deadline belongs to the future it surrounds, not to the thread.
#[tokio::test(start_paused = true)]
async fn tasks_on_one_thread_do_not_see_each_others_deadlines() {
    let began = Instant::now();
    let check_twice = || async {
        let first = deadline::current();
        tokio::task::yield_now().await;
        (first, deadline::current())
    };
    let at = |after| began + ms(after);
    let mut scoped = task::spawn(scope(at(10), check_twice()));
    let limit = Timeout::new("t", ms(20));
    let mut limited = task::spawn(limit.run(async { Ok::<_, BoxError>(check_twice().await) }));
    let mut bare = task::spawn(check_twice());
    assert_pending!(scoped.poll());
    assert_pending!(limited.poll());
    assert_pending!(bare.poll());
    advance(ms(1)).await;
    assert_eq!(assert_ready!(limited.poll()).unwrap(), (Some(at(20)), Some(at(20))));
    assert_eq!(assert_ready!(bare.poll()), (None, None));
    assert_eq!(assert_ready!(scoped.poll()), (Some(at(10)), Some(at(10))));
}

#[test]
fn a_future_keeps_its_deadline_on_another_thread() {
    let at = Instant::now() + ms(10);
    let mut scoped = Box::pin(scope(at, async {
        tokio::task::yield_now().await;
        deadline::current()
    }));
    assert!(support::poll_once(scoped.as_mut()).is_pending());
    std::thread::spawn(move || {
        assert_eq!(deadline::current(), None);
        assert_eq!(support::poll_once(scoped.as_mut()), std::task::Poll::Ready(Some(at)));
        assert_eq!(deadline::current(), None);
    })
    .join()
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_a_scope_restores_the_outer_deadline() {
    let (near, far) = (Instant::now() + ms(10), Instant::now() + ms(20));
    scope(far, async {
        let panics = async { assert_eq!(deadline::current(), None, "deliberate panic") };
        let polled = std::panic::AssertUnwindSafe(|| support::poll_once(scope(near, panics)));
        assert!(std::panic::catch_unwind(polled).is_err());
        assert_eq!(deadline::current(), Some(far));
    })
    .await;
}

#[test]
fn debug_of_a_scope_shows_the_deadline_and_not_the_future() {
    let text = format!("{:?}", scope(Instant::now(), std::future::ready("secret")));
    assert!(text.contains("at") && !text.contains("secret"), "{text}");
}

#[derive(Clone, Copy, Debug)]
enum Scoped {
    Scope(u64),
    Timeout(u64),
    NoTimeout,
}

/// Nests the scopes, outermost first. `checks` has two bits per level: whether to compare the
/// current deadline on entry and on exit. `min` is the earliest deadline so far, in milliseconds.
fn nest(
    began: Instant,
    min: Option<u64>,
    scopes: &'static [Scoped],
    checks: u64,
) -> Pin<Box<dyn Future<Output = Result<(), BoxError>>>> {
    let check = move |bit: u32| {
        if checks >> (scopes.len() as u32 * 2 + bit) & 1 == 1 {
            assert_eq!(deadline::current(), min.map(|min| began + ms(min)), "{scopes:?}");
        }
    };
    Box::pin(async move {
        check(0);
        if let Some((first, rest)) = scopes.split_first() {
            let with = |after: u64| Some(min.map_or(after, |min| min.min(after)));
            match *first {
                Scoped::Scope(after) => scope(began + ms(after), nest(began, with(after), rest, checks)).await?,
                Scoped::Timeout(after) => {
                    Timeout::new("t", ms(after)).run(nest(began, with(after), rest, checks)).await?;
                }
                Scoped::NoTimeout => Timeout::new("t", Duration::MAX).run(nest(began, min, rest, checks)).await?,
            }
        }
        check(1);
        // A later poll finds the same deadlines.
        tokio::time::sleep(ms(1)).await;
        check(0);
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // Wherever the first check is made.
    #[test]
    fn the_deadline_is_the_earliest_of_all_enclosing_scopes(
        scopes in prop::collection::vec(
            prop_oneof![
                (100_u64..200).prop_map(Scoped::Scope),
                (100_u64..200).prop_map(Scoped::Timeout),
                Just(Scoped::NoTimeout),
            ],
            0..6,
        ),
        checks: u64,
    ) {
        paused(async {
            // Leaks a few bytes per case: the futures are boxed and recursive.
            nest(Instant::now(), None, scopes.leak(), checks).await.unwrap();
            assert_eq!(deadline::current(), None);
        });
    }
}
