use std::{
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

use super::{Timer, queues::has_timer};
use crate::clock;

const MILLISECOND: u64 = 1_000_000;

fn in_millis(millis: u64) -> u64 {
    clock::nanos() + millis * MILLISECOND
}

/// A timer as a future.
async fn sleep_until(deadline: u64) {
    let mut timer = Timer::default();
    poll_fn(|cx| timer.poll(deadline, cx)).await;
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counting_waker() -> (Arc<CountingWaker>, Waker) {
    let counting = Arc::new(CountingWaker::default());
    (Arc::clone(&counting), Waker::from(counting))
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn timers_expire_in_the_order_of_their_deadlines_and_at_them() {
    let start = clock::nanos();
    let expired = Arc::new(Mutex::new(Vec::new()));
    // More limits than there are lanes, in an order that opens all of them.
    let tasks: Vec<_> = (1..=40_u64)
        .rev()
        .map(|at| {
            let expired = Arc::clone(&expired);
            tokio::spawn(async move {
                sleep_until(start + at * 10 * MILLISECOND).await;
                expired.lock().unwrap().push((at * 10, (clock::nanos() - start) / MILLISECOND));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*expired.lock().unwrap(), (1..=40).map(|at| (at * 10, at * 10)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_not_kept_waiting_by_later_ones() {
    let start = clock::nanos();
    let late = tokio::spawn(sleep_until(in_millis(1000)));
    tokio::task::yield_now().await;
    sleep_until(in_millis(10)).await;
    assert_eq!(clock::nanos() - start, 10 * MILLISECOND);
    late.await.unwrap();
    assert_eq!(clock::nanos() - start, 1000 * MILLISECOND);
}

/// No task is polled between the two deadlines, and no timer is polled again.
#[tokio::test(start_paused = true)]
async fn timers_that_are_not_polled_again_wake_their_tasks() {
    let timers: Vec<_> = [10, 20, 30]
        .into_iter()
        .map(|at| {
            let (count, waker) = counting_waker();
            let mut timer = Timer::default();
            assert!(timer.poll(in_millis(at), &mut Context::from_waker(&waker)).is_pending());
            (timer, count)
        })
        .collect();
    let counts = || timers.iter().map(|(_, count)| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_millis(15)).await;
    assert_eq!(counts(), [1, 0, 0]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(counts(), [1, 1, 0]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(counts(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_wakes_the_task_that_polled_it_last_and_none_once_it_is_dropped() {
    let ((first, first_waker), (second, second_waker)) = (counting_waker(), counting_waker());
    let (mut timer, deadline) = (Timer::default(), in_millis(10));
    assert!(timer.poll(deadline, &mut Context::from_waker(&first_waker)).is_pending());
    assert!(timer.poll(deadline, &mut Context::from_waker(&second_waker)).is_pending());
    let (dropped, dropped_waker) = counting_waker();
    let mut other = Timer::default();
    assert!(other.poll(deadline, &mut Context::from_waker(&dropped_waker)).is_pending());
    drop(other);
    drop(dropped_waker);
    assert_eq!(Arc::strong_count(&dropped), 1, "a dropped timer keeps no waker");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let count = |waker: &CountingWaker| waker.0.load(Ordering::Relaxed);
    assert_eq!((count(&first), count(&second), count(&dropped)), (0, 1, 0));
    assert!(timer.poll(deadline, &mut Context::from_waker(&first_waker)).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_is_ready_immediately_and_one_that_never_comes_never() {
    let mut cx = Context::from_waker(Waker::noop());
    for past in [0, 1, clock::nanos() - 1, clock::nanos()] {
        assert!(Timer::default().poll(past, &mut cx).is_ready());
    }
    for never in [u64::MAX, u64::MAX - 1] {
        let mut timer = Timer::default();
        assert!(timer.poll(never, &mut cx).is_pending());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(timer.poll(never, &mut cx).is_pending());
    }
}

/// An idle runtime with a paused clock moves to the next timer that is registered.
#[tokio::test(start_paused = true)]
async fn a_timer_that_was_dropped_does_not_move_a_paused_clock() {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut first, mut second) = (Timer::default(), Timer::default());
    for _ in 0..2 {
        assert!(first.poll(in_millis(1000), &mut cx).is_pending());
        assert!(second.poll(in_millis(500), &mut cx).is_pending());
        first = Timer::default();
        assert!(has_timer(Handle::current().id()));
        second = Timer::default();
        assert!(!has_timer(Handle::current().id()));
    }
}

#[test]
fn a_call_whose_runtime_shuts_down_registers_with_the_one_that_polls_it_next() {
    let (count, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let (mut timer, mut deadline) = (Timer::default(), 0);
    let first = paused();
    first.block_on(async {
        deadline = in_millis(5000);
        assert!(timer.poll(deadline, &mut cx).is_pending());
    });
    drop(first);
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "the call is woken");
    let second = paused();
    second.block_on(async {
        assert!(timer.poll(deadline, &mut cx).is_pending());
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(timer.poll(deadline, &mut cx).is_ready());
    });
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
}

#[test]
fn runtimes_do_not_move_each_others_timers() {
    let (count, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    let (slow, fast) = (paused(), paused());
    let mut timer = Timer::default();
    slow.block_on(async { assert!(timer.poll(in_millis(100), &mut cx).is_pending()) });
    fast.block_on(async {
        sleep_until(in_millis(1000)).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    slow.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn calls_of_many_threads_and_runtimes_all_expire() {
    let threads: Vec<_> = (0..4)
        .map(|seed: u64| {
            std::thread::spawn(move || {
                let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
                runtime.block_on(async move {
                    let calls = (0..500_u64).map(|call| {
                        let after = 1 + (call * 7 + seed) % 20;
                        tokio::spawn(async move {
                            let deadline = in_millis(after);
                            if call % 3 == 0 {
                                // Completes before its deadline.
                                let mut timer = Timer::default();
                                let mut cx = Context::from_waker(Waker::noop());
                                let _ = timer.poll(deadline, &mut cx);
                            } else {
                                sleep_until(deadline).await;
                                assert!(clock::nanos() >= deadline);
                            }
                        })
                    });
                    for call in calls.collect::<Vec<_>>() {
                        call.await.unwrap();
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A waker may run anything, such as a task that waits, or drop one.
#[tokio::test(start_paused = true)]
async fn a_waker_may_panic_or_use_timers() {
    struct Reentrant;

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Timer::default().poll(in_millis(7), &mut cx).is_pending());
        }
    }

    impl Drop for Reentrant {
        fn drop(&mut self) {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Timer::default().poll(in_millis(7), &mut cx).is_pending());
        }
    }

    let deadline = in_millis(10);
    let mut timers = [Timer::default(), Timer::default()];
    let reentrant = Waker::from(Arc::new(Reentrant));
    assert!(timers[0].poll(deadline, &mut Context::from_waker(&reentrant)).is_pending());
    // Replaced later, and dropped by the queue.
    assert!(timers[1].poll(deadline, &mut Context::from_waker(&reentrant)).is_pending());
    let (count, waker) = counting_waker();
    assert!(timers[1].poll(deadline, &mut Context::from_waker(&waker)).is_pending());
    drop(reentrant);
    sleep_until(in_millis(20)).await;
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn outside_of_a_runtime_it_panics_and_leaves_nothing_behind() {
    let poll = || Timer::default().poll(u64::MAX - 1, &mut Context::from_waker(Waker::noop()));
    let outside = std::panic::catch_unwind(poll);
    assert!(outside.is_err());
    let without_time = Builder::new_current_thread().build().unwrap();
    let _entered = without_time.enter();
    for _ in 0..2 {
        let untimed = std::panic::catch_unwind(|| {
            Timer::default().poll(clock::nanos() + MILLISECOND, &mut Context::from_waker(Waker::noop()))
        });
        assert!(untimed.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_cooperative_budget_does_not_starve_a_timer() {
    let busy = async {
        let mut timer = Timer::default();
        let deadline = in_millis(10);
        poll_fn(|cx| {
            // Exhausts the budget of this poll.
            loop {
                let mut unit = std::pin::pin!(tokio::task::coop::consume_budget());
                if unit.as_mut().poll(cx).is_pending() {
                    break;
                }
            }
            timer.poll(deadline, cx)
        })
        .await;
    };
    let advance = async {
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    };
    let (busy, advance) = (tokio::spawn(busy), tokio::spawn(advance));
    let _: ((), ()) = (busy.await.unwrap(), advance.await.unwrap());
}
