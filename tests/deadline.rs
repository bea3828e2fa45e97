//! The deadline around a call, as those inside see it; T13 and T14 of the contract. What enforces it is in `timeout.rs`.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::{future::Future, pin::Pin, time::Duration};

use proptest::prelude::*;
use support::BoxError;
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
async fn without_a_deadline_there_is_none_and_one_that_has_passed_leaves_no_time() {
    assert_eq!((deadline::current(), deadline::remaining()), (None, None));
    let at = Instant::now();
    advance(ms(5)).await;
    let seen = scope(at, async { (deadline::current(), deadline::remaining()) }).await;
    assert_eq!(seen, (Some(at), Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_scope_inside_another_can_only_shorten_it() {
    let (near, far) = (Instant::now() + ms(10), Instant::now() + ms(20));
    scope(near, async {
        assert_eq!(scope(far, async { deadline::current() }).await, Some(near));
        assert_eq!(deadline::current(), Some(near));
    })
    .await;
    scope(far, async {
        assert_eq!(scope(near, async { deadline::current() }).await, Some(near));
        assert_eq!(deadline::current(), Some(far), "the inner one is over");
    })
    .await;
    assert_eq!(deadline::current(), None);
}

// A deadline belongs to the future that it was put around, not to the thread.
#[tokio::test(start_paused = true)]
async fn tasks_that_take_turns_on_one_thread_do_not_see_each_others_deadlines() {
    let began = Instant::now();
    let look_twice = || async {
        let first = deadline::current();
        tokio::task::yield_now().await;
        (first, deadline::current())
    };
    let at = |after| began + ms(after);
    let mut scoped = task::spawn(scope(at(10), look_twice()));
    let limit = Timeout::new("t", ms(20));
    let mut limited = task::spawn(limit.run(async { Ok::<_, BoxError>(look_twice().await) }));
    let mut bare = task::spawn(look_twice());
    assert_pending!(scoped.poll());
    assert_pending!(limited.poll());
    assert_pending!(bare.poll());
    advance(ms(1)).await;
    assert_eq!(assert_ready!(limited.poll()).unwrap(), (Some(at(20)), Some(at(20))));
    assert_eq!(assert_ready!(bare.poll()), (None, None));
    assert_eq!(assert_ready!(scoped.poll()), (Some(at(10)), Some(at(10))));
}

// It goes along to the thread that polls the future next.
#[test]
fn a_future_that_moves_to_another_thread_takes_its_deadline_along() {
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
async fn a_panic_inside_a_scope_puts_the_outer_deadline_back() {
    let (near, far) = (Instant::now() + ms(10), Instant::now() + ms(20));
    scope(far, async {
        let panics = async { assert_eq!(deadline::current(), None, "told to panic") };
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
enum Around {
    Scope(u64),
    Limit(u64),
    Never,
}

/// Puts all of `around` around nothing, outermost first; what is inside of each looks at its deadline where `looks` says so:
/// on the way in, and on the way out. `min` is the earliest deadline so far, in milliseconds.
fn nest(
    began: Instant,
    min: Option<u64>,
    around: &'static [Around],
    looks: u64,
) -> Pin<Box<dyn Future<Output = Result<(), BoxError>>>> {
    let look = move |way: u32| {
        if looks >> (around.len() as u32 * 2 + way) & 1 == 1 {
            assert_eq!(deadline::current(), min.map(|min| began + ms(min)), "{around:?}");
        }
    };
    Box::pin(async move {
        look(0);
        if let Some((first, rest)) = around.split_first() {
            let with = |after: u64| Some(min.map_or(after, |min| min.min(after)));
            match *first {
                Around::Scope(after) => scope(began + ms(after), nest(began, with(after), rest, looks)).await?,
                Around::Limit(after) => {
                    Timeout::new("t", ms(after)).run(nest(began, with(after), rest, looks)).await?;
                }
                Around::Never => Timeout::new("t", Duration::MAX).run(nest(began, min, rest, looks)).await?,
            }
        }
        look(1);
        // The second poll, later: the deadlines stay where they were.
        tokio::time::sleep(ms(1)).await;
        look(0);
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // Whoever looks first, and wherever, sees the earliest of what is around.
    #[test]
    fn at_any_depth_the_deadline_is_the_earliest_of_those_around(
        around in prop::collection::vec(
            prop_oneof![
                (100_u64..200).prop_map(Around::Scope),
                (100_u64..200).prop_map(Around::Limit),
                Just(Around::Never),
            ],
            0..6,
        ),
        looks: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            // Leaked, a few bytes a case: the futures are boxed and recursive.
            nest(Instant::now(), None, around.leak(), looks).await.unwrap();
            assert_eq!(deadline::current(), None);
        });
    }
}
