//! The budget, through the retries that draw on it.

use std::time::Duration;

use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    clock::{ManualClock, Nanos},
    retry::{Retry, RetryBudget, RetryBudgetBuilder},
};

use crate::{
    address, balance, budget, builder, by_text, error, failing, ms, now, recorded,
    support::{
        BoxError,
        probe::{Ready, Reply, Script},
    },
};

/// Withdraws all tokens and returns their number.
fn drain(budget: &RetryBudget) -> u32 {
    std::iter::repeat_with(|| budget.try_withdraw()).take_while(|got| *got).count() as u32
}

// R19
#[tokio::test(start_paused = true)]
async fn each_retry_withdraws_a_token_and_only_successes_deposit() {
    let budget = RetryBudget::builder().ratio(0.5).capacity(10).min_per_second(0).build().unwrap();
    let retry = builder().budget(&budget).build().unwrap();
    let call = async |replies: Vec<Reply>| {
        let (script, probe) = Script::new();
        for reply in replies {
            script.reply(reply);
        }
        let _ = retry.layer().classify_with(by_text).layer(probe).oneshot("a").await;
    };
    let down = || Reply::Err("down".into());
    call(vec![down(), down(), down()]).await;
    assert_eq!(balance(&budget), 8.0, "two retries, no success");
    call(vec![down(), Reply::Ok("fine")]).await;
    assert_eq!(balance(&budget), 7.5, "one retry, and one success that deposits");
    call(vec![Reply::Err("ignore me".into())]).await;
    assert_eq!(balance(&budget), 7.5);
    call(vec![Reply::Ok("slow down"), Reply::Ok("bad"), Reply::Ok("bad")]).await;
    assert_eq!(balance(&budget), 5.5);
    call(vec![Reply::Ok("fine")]).await;
    assert_eq!(balance(&budget), 6.0);
}

// R20, R3
#[tokio::test(start_paused = true)]
async fn an_empty_budget_returns_the_original_result_immediately() {
    let budget = budget(1);
    drain(&budget);
    let (script, probe) = Script::new();
    let down = error("down");
    let original = address(&down);
    script.reply(Reply::Err(down));
    let (builder, recorder) = recorded();
    let (service, start) = (builder.budget(&budget).build().unwrap().layer().layer(probe), now());
    assert_eq!(address(&service.oneshot("a").await.unwrap_err()), original);
    assert_eq!((script.calls(), now() - start), (1, ms(0)));
    assert_eq!(recorder.take(), ["admitted", "budget exhausted after 1", "completed failure"]);
}

// R21, R17
#[tokio::test(start_paused = true)]
async fn the_token_of_an_unsent_retry_is_returned() {
    let budget = budget(5);
    let retry = builder().budget(&budget).deadline(ms(100)).build().unwrap();

    // Dropped during the delay.
    let (script, probe) = failing(1);
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    assert_eq!(balance(&budget), 4.0, "withdrawn when the retry is scheduled");
    drop(call);
    assert_eq!(balance(&budget), 5.0);

    // Dropped while the service is not ready.
    let (unready, probe) = failing(1);
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    unready.set_ready(Ready::No);
    tokio::time::advance(ms(11)).await;
    assert_pending!(call.poll());
    assert_eq!(balance(&budget), 4.0);
    drop(call);
    assert_eq!(balance(&budget), 5.0);

    // The service fails to become ready, or does not become ready in time.
    for ready in [Ready::Err("broken"), Ready::No] {
        let (unready, probe) = failing(1);
        let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
        assert_pending!(call.poll());
        unready.set_ready(ready);
        call.await.unwrap_err();
        assert_eq!((unready.calls(), balance(&budget)), (1, 5.0));
    }

    // The preparation panics.
    let (panicking, probe) = failing(1);
    let layer = retry.layer().prepare_with(|_, _: &mut &'static str| panic!("deliberate panic"));
    tokio::spawn(layer.layer(probe).oneshot("a")).await.unwrap_err();
    assert_eq!((panicking.calls(), balance(&budget)), (1, 5.0));
    assert_eq!(script.calls(), 1);
}

// R21: the retry was sent, so its token is spent even if the call is dropped.
#[tokio::test(start_paused = true)]
async fn the_token_of_a_sent_retry_is_spent() {
    let budget = budget(5);
    let (script, probe) = failing(1);
    script.reply(Reply::Later);
    let mut call = task::spawn(builder().budget(&budget).build().unwrap().layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    tokio::time::advance(ms(11)).await;
    assert_pending!(call.poll());
    assert_eq!((script.calls(), script.live()), (2, 1));
    drop(call);
    assert_eq!((script.live(), balance(&budget)), (0, 4.0));
}

// R22, G25, R35
#[tokio::test(start_paused = true)]
async fn a_handles_clones_and_services_share_its_budget() {
    let retry = builder().max_attempts(7).build().unwrap();
    let full = retry.snapshot().budget.unwrap().balance;
    retry.set_max_attempts(3).unwrap();
    for service in [retry.layer(), retry.layer(), retry.clone().layer()] {
        let (_, probe) = failing(3);
        let service = service.layer(probe);
        service.clone().oneshot("a").await.unwrap_err();
    }
    assert_eq!((full, retry.snapshot().budget.unwrap().balance), (6.0, 0.0));
    assert_eq!(builder().max_attempts(7).build().unwrap().snapshot().budget.unwrap().balance, full);
}

// R22
#[tokio::test(start_paused = true)]
async fn two_handles_can_share_a_budget() {
    let budget = budget(10);
    for name in ["one", "other"] {
        let retry = Retry::builder(name).max_attempts(3).budget(&budget).build().unwrap();
        let (_, probe) = failing(3);
        retry.layer().layer(probe).oneshot("a").await.unwrap_err();
    }
    assert_eq!(balance(&budget), 6.0);
}

// R23
#[test]
fn ratios_are_exact() {
    for (ratio, successes, retries) in
        [(0.1, 10, 1), (0.3, 10, 3), (0.6, 10, 6), (0.9, 10, 9), (2.0, 1, 2), (0.001, 1000, 1)]
    {
        let budget = RetryBudget::builder().ratio(ratio).capacity(100).min_per_second(0).build().unwrap();
        assert_eq!(drain(&budget), 100);
        for _ in 1..successes {
            budget.deposit();
        }
        assert!(drain(&budget) < retries, "{ratio}: one success fewer is not enough");
        let whole = RetryBudget::builder().ratio(ratio).capacity(100).min_per_second(0).build().unwrap();
        drain(&whole);
        (0..successes).for_each(|_| whole.deposit());
        assert_eq!(drain(&whole), retries, "{ratio}");
    }
}

// R24
#[tokio::test(start_paused = true)]
async fn a_cold_client_can_retry_and_the_budget_refills_over_time() {
    let budget = RetryBudget::builder().capacity(5).min_per_second(2).build().unwrap();
    assert_eq!(drain(&budget), 5, "before any success");
    tokio::time::advance(ms(510)).await;
    assert_eq!(drain(&budget), 1);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(drain(&budget), 5, "no more than the capacity");
}

// R25: deposits do not expire, since that would read the clock for every success. The capacity
// bounds them.
#[test]
fn old_deposits_buy_no_more_than_the_capacity() {
    let budget = budget(7);
    drain(&budget);
    (0..100_000).for_each(|_| budget.deposit());
    assert_eq!(drain(&budget), 7);
}

// R26
#[test]
fn eight_threads_withdraw_exactly_the_balance_and_the_deposits() {
    let budget = budget(100);
    let granted: usize = std::thread::scope(|scope| {
        let work = || {
            let granted = (0..200).filter(|_| budget.try_withdraw()).count();
            (0..10).for_each(|_| budget.deposit());
            granted
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(granted + drain(&budget) as usize, 100 + 8 * 10);
}

// R26: the clock stands still, jumps far and goes backwards.
#[test]
fn clock_jumps_neither_overfill_nor_empty_the_budget() {
    let clock = ManualClock::new();
    clock.set(Nanos::new(1 << 56));
    let budget = RetryBudget::builder().capacity(5).min_per_second(1).clock(clock.clone()).build().unwrap();
    assert_eq!((drain(&budget), drain(&budget)), (5, 0));
    clock.set(Nanos::new(1 << 56).saturating_sub(Duration::from_secs(3600)));
    assert_eq!((balance(&budget), drain(&budget)), (0.0, 0));
    clock.set(Nanos::new(1 << 56));
    clock.advance(Duration::from_secs(3));
    assert_eq!(drain(&budget), 3);
    clock.advance(Duration::from_secs(365 * 24 * 3600));
    assert_eq!(drain(&budget), 5);
    clock.set(Nanos::MAX);
    assert!(drain(&budget) <= 5);
}

#[tokio::test(start_paused = true)]
async fn an_outage_causes_a_bounded_number_of_retries() {
    let budget = RetryBudget::builder().capacity(10).min_per_second(1).build().unwrap();
    let (script, probe) = Script::new();
    let service = builder().budget(&budget).build().unwrap().layer().layer(probe);
    let down = service_fn(|_: &'static str| async { Err::<&'static str, BoxError>(error("down")) });
    let broken = builder().budget(&budget).build().unwrap();
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = {
        let attempts = attempts.clone();
        tower::ServiceBuilder::new()
            .map_request(move |request| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                request
            })
            .service(down)
    };
    let broken = broken.layer().layer(counted);
    // A minute of 100 calls per second, all of which fail.
    for _ in 0..60 {
        for _ in 0..100 {
            let _ = tokio::join!(broken.clone().oneshot("a"), tokio::time::sleep(ms(10)));
        }
    }
    let retries = attempts.load(std::sync::atomic::Ordering::SeqCst) - 6000;
    assert!((60..=90).contains(&retries), "{retries} retries, not the capacity plus one per second");
    // After the outage, successes refill the bucket.
    for _ in 0..100 {
        service.clone().oneshot("a").await.unwrap();
    }
    assert_eq!((script.calls(), balance(&budget)), (100, 10.0));
}

#[test]
fn a_budgets_configuration_error_names_the_field() {
    let build = |change: fn(RetryBudgetBuilder) -> RetryBudgetBuilder| change(RetryBudget::builder()).build();
    let ratios = [f64::NAN, f64::INFINITY, -0.1, 0.0009, 1000.1];
    for ratio in ratios {
        let error = RetryBudget::builder().ratio(ratio).build().unwrap_err();
        assert_eq!(error.field(), "ratio");
    }
    for (result, field) in [
        (build(|budget| budget.capacity(0)), "capacity"),
        (build(|budget| budget.capacity(1_000_001)), "capacity"),
        (build(|budget| budget.min_per_second(1_000_001)), "min_per_second"),
    ] {
        assert_eq!(result.unwrap_err().field(), field);
    }
    let widest = RetryBudget::builder().ratio(1000.0).capacity(1_000_000).min_per_second(1_000_000).build().unwrap();
    (0..10).for_each(|_| widest.deposit());
    assert_eq!(balance(&widest), 1e6);
    let none = RetryBudget::builder().ratio(0.0).min_per_second(0).capacity(1).build().unwrap();
    assert_eq!(
        (drain(&none), {
            none.deposit();
            drain(&none)
        }),
        (1, 0)
    );
}

// G22
#[test]
fn the_defaults_match_the_documentation_and_need_no_runtime() {
    let snapshot = RetryBudget::default().snapshot();
    assert_eq!((snapshot.ratio, snapshot.capacity, snapshot.min_per_second, snapshot.balance), (0.1, 2.0, 0.0, 2.0));
    let retry = Retry::builder("test").build().unwrap().snapshot();
    assert_eq!((retry.max_attempts, retry.budget), (3, Some(snapshot)));
    // A full bucket always covers the retries of one call.
    let patient = Retry::builder("test").max_attempts(6).build().unwrap().snapshot();
    assert_eq!(patient.budget.unwrap().capacity, 5.0);
    assert_eq!(Retry::builder("test").no_budget().build().unwrap().snapshot().budget, None);
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_only_the_attempts_are_limited() {
    let (script, probe) = failing(50);
    let mut service = builder().max_attempts(50).no_budget().build().unwrap().layer().layer(probe);
    service.ready().await.unwrap().call("a").await.unwrap_err();
    assert_eq!(script.calls(), 50);
}
