//! The handle: use without Tower, settings, snapshot.

use std::{cell::RefCell, time::Duration};

use tower_rampart::{
    AsRejection, Error, Rejection, Verdict, adapt,
    retry::{Backoff, Jitter, Retry},
};

use crate::{address, budget, builder, error, ms, now, support::BoxError};

// R2, R3, R33
#[tokio::test(start_paused = true)]
async fn run_makes_attempts_and_passes_their_number() {
    let (numbers, start) = (RefCell::new(Vec::new()), now());
    let retry = builder().no_budget().build().unwrap();
    let result = retry.run(|attempt| {
        numbers.borrow_mut().push(attempt);
        async move { if attempt == 3 { Ok("ok") } else { Err(error("down")) } }
    });
    assert_eq!(result.await.unwrap(), "ok");
    assert_eq!((numbers.take(), now() - start), (vec![1, 2, 3], ms(20)));

    let errors: Vec<_> = (0..3).map(|n| error(&format!("{n}"))).collect();
    let last = address(&errors[2]);
    let mut errors = errors.into_iter();
    let returned = retry.run(|_| std::future::ready(Err::<(), _>(errors.next().unwrap()))).await.unwrap_err();
    assert_eq!(address(&returned), last);
}

// R6
#[tokio::test(start_paused = true)]
async fn run_with_retries_the_results_its_classifier_counts_as_failures() {
    let retry = builder().build().unwrap();
    let below_three = |result: Result<&u32, &std::io::Error>| match result {
        Ok(..3) => Verdict::Throttled,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Ignored,
    };
    assert_eq!(retry.run_with(below_three, |attempt| async move { Ok(attempt) }).await.unwrap(), 3);
    let mut attempts = 0;
    let result = retry.run_with(below_three, |attempt| {
        attempts = attempt;
        async { Err(std::io::ErrorKind::Other.into()) }
    });
    assert!(result.await.is_err());
    assert_eq!(attempts, 1);
}

// R28, R30, R31
#[tokio::test(start_paused = true)]
async fn run_applies_the_rules_for_rejections() {
    let attempts = async |retry: Retry, rejection: Rejection| {
        let start = now();
        let mut attempts = 0;
        let result = retry.run(|attempt| {
            attempts = attempt;
            let result = if attempt == 1 { Err(BoxError::from(rejection.clone())) } else { Ok(()) };
            async { result }
        });
        assert_eq!(result.await.is_ok(), attempts == 2);
        (attempts, now() - start)
    };
    let plain = || builder().build().unwrap();
    assert_eq!(attempts(plain(), Rejection::circuit_open("inner", Some(ms(1)))).await, (1, ms(0)));
    assert_eq!(attempts(plain(), Rejection::rate_limited("inner", Some(ms(50)), 1)).await, (2, ms(50)));
    assert_eq!(attempts(plain(), Rejection::timed_out("inner", ms(1), true)).await, (1, ms(0)));
    let idempotent = builder().idempotent(true).build().unwrap();
    assert_eq!(attempts(idempotent, Rejection::timed_out("inner", ms(1), true)).await, (2, ms(10)));
}

// G22: without a delay there is no timer.
#[test]
fn run_needs_a_runtime_only_to_wait() {
    let retry = builder().build().unwrap();
    let std::task::Poll::Ready(Ok(attempt)) =
        crate::support::poll_once(retry.run(|attempt| async move { Ok::<_, BoxError>(attempt) }))
    else {
        panic!("not ready")
    };
    assert_eq!(attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn run_keeps_foreign_errors_typed_through_adapt() {
    let retry = builder().build().unwrap();
    let result = retry.run(|_| adapt(async { "12x".parse::<u32>() })).await;
    let Err(Error::Service(error)) = result else { panic!("the error has changed") };
    assert_eq!(error, "12x".parse::<u32>().unwrap_err());
}

// R12
#[tokio::test(start_paused = true)]
async fn run_drops_a_failed_response_before_the_delay() {
    let response = std::sync::Arc::new(());
    let retry = builder().max_attempts(2).build().unwrap();
    let always = |_: Result<&std::sync::Arc<()>, &BoxError>| Verdict::Failure;
    let mut run = tokio_test::task::spawn(retry.run_with(always, |_| std::future::ready(Ok(response.clone()))));
    tokio_test::assert_pending!(run.poll());
    assert_eq!(std::sync::Arc::strong_count(&response), 1);
}

// R8
#[tokio::test(start_paused = true)]
async fn equal_seeds_give_equal_delays_and_unseeded_handles_differ() {
    let elapsed = async |retry: Retry| {
        let start = now();
        retry.run(|_| async { Err::<(), _>(error("down")) }).await.unwrap_err();
        now() - start
    };
    let backoff = Backoff::exponential(Duration::from_secs(60), Duration::from_secs(600));
    let jittered = || builder().max_attempts(5).backoff(backoff);
    let seeded = |seed| jittered().seed(seed).build().unwrap();
    assert_eq!(elapsed(seeded(7)).await, elapsed(seeded(7)).await);
    assert_ne!(elapsed(seeded(7)).await, elapsed(seeded(8)).await);
    let plain = || jittered().build().unwrap();
    assert_ne!(elapsed(plain()).await, elapsed(plain()).await);
}

// G22
#[test]
fn an_invalid_retry_is_an_error_with_field_and_reason() {
    let zero = Retry::attempts("test", 0).unwrap_err();
    assert_eq!((zero.field(), zero.reason()), ("max_attempts", "is zero: not even the first attempt could be made"));
    assert_eq!(builder().deadline(Duration::ZERO).build().unwrap_err().field(), "deadline");
    builder().max_attempts(u32::MAX).deadline(Duration::MAX).max_retry_after(Duration::MAX).build().unwrap();
}

#[test]
fn the_snapshot_shows_the_settings() {
    let budget = budget(3);
    let backoff = Backoff::fixed(ms(10)).jitter(Jitter::Equal);
    let retry = builder().backoff(backoff).budget(&budget).deadline(ms(99)).max_retry_after(ms(77)).build().unwrap();
    assert!(budget.try_withdraw());
    let snapshot = retry.clone().snapshot();
    assert_eq!((snapshot.max_attempts, snapshot.backoff, snapshot.deadline), (3, backoff, Some(ms(99))));
    assert_eq!((snapshot.max_retry_after, snapshot.budget), (ms(77), Some(budget.snapshot())));
    assert_eq!(snapshot.budget.unwrap().balance, 2.0);
}

#[test]
fn the_presets_match_their_documentation() {
    let settings = |retry: Retry| {
        let snapshot = retry.snapshot();
        assert!(snapshot.budget.is_some(), "every preset has a budget");
        let delays = snapshot.backoff.jitter(Jitter::None).delays(0).take(snapshot.max_attempts as usize - 1);
        (snapshot.max_attempts, delays.sum::<Duration>(), snapshot.max_retry_after)
    };
    let interactive = settings(Retry::builder("test").interactive().build().unwrap());
    assert_eq!(interactive, (3, ms(75), ms(500)));
    let background = settings(Retry::builder("test").background().build().unwrap());
    assert_eq!(background, (6, ms(15_500), Duration::from_secs(60)));
}

// A rejection by a stack inside the service is that service's failure, and is retried.
#[tokio::test(start_paused = true)]
async fn a_rejection_inside_the_services_own_error_is_a_failure() {
    let retry = builder().build().unwrap();
    let mut attempts = 0;
    let result = retry.run(|attempt| {
        attempts = attempt;
        async { Err::<(), Error<Rejection>>(Error::Service(Rejection::bulkhead_full("remote", 1))) }
    });
    assert!(result.await.unwrap_err().as_rejection().is_none());
    assert_eq!(attempts, 3);
}
