//! Which results are retried, how often, and which requests are sent.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    Verdict,
    bulkhead::Bulkhead,
    retry::{Backoff, Jitter},
};

use crate::{
    address, builder, by_text, error, failing, ms, now,
    support::{
        BoxError,
        probe::{Reply, Script},
    },
};

// R1, G12
#[tokio::test(start_paused = true)]
async fn a_success_returns_immediately_without_cloning_the_service() {
    let (script, probe) = Script::new();
    let mut service = builder().build().unwrap().layer().layer(probe);
    let (clones, start) = (script.clones(), now());
    assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "ok");
    assert_eq!((script.calls(), script.clones(), now() - start), (1, clones, ms(0)));
}

// R1, G11
#[tokio::test(start_paused = true)]
async fn a_completed_call_keeps_no_copy_of_the_request() {
    let calls = Arc::new(AtomicU32::new(0));
    let flaky = service_fn(move |_: Arc<()>| {
        let first = calls.fetch_add(1, SeqCst) == 0;
        async move { if first { Err(error("down")) } else { Ok(()) } }
    });
    let mut service = builder().build().unwrap().layer().layer(flaky);
    let request = Arc::new(());
    let mut call = task::spawn(service.ready().await.unwrap().call(request.clone()));
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&request), 2, "the copy for the next attempt");
    tokio::time::advance(ms(11)).await;
    assert_ready_ok!(call.poll());
    assert_eq!(Arc::strong_count(&request), 1, "while the future is kept");
}

// R2, R3, G13
#[tokio::test(start_paused = true)]
async fn the_last_attempts_error_is_returned_by_value_after_max_attempts() {
    for max in 1..=4 {
        let (script, probe) = Script::new();
        let errors: Vec<BoxError> = (0..4).map(|n| error(&format!("error {n}"))).collect();
        let addresses: Vec<_> = errors.iter().map(address).collect();
        for error in errors {
            script.reply(Reply::Err(error));
        }
        let service = builder().max_attempts(max).build().unwrap().layer().layer(probe);
        let returned = service.oneshot("a").await.unwrap_err();
        assert_eq!(script.requests(), vec!["a"; max as usize]);
        assert_eq!(address(&returned), addresses[max as usize - 1]);
    }
}

// R4
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_sent_once_and_its_result_passes_unchanged() {
    let (script, probe) = Script::new();
    let down = error("down");
    let original = address(&down);
    script.reply(Reply::Err(down));
    let service = builder().build().unwrap().layer().clone_with(|_: &&'static str| None).layer(probe);
    assert_eq!(address(&service.oneshot("a").await.unwrap_err()), original);
    assert_eq!(script.calls(), 1);
}

// R4
#[tokio::test(start_paused = true)]
async fn a_request_that_can_be_copied_once_is_sent_twice() {
    let (script, probe) = failing(3);
    let copies = AtomicU32::new(1);
    let copy = |request: &&'static str| (copies.fetch_sub(1, SeqCst) == 1).then_some(*request);
    let service = builder().build().unwrap().layer().clone_with(&copy).layer(probe);
    service.oneshot("a").await.unwrap_err();
    assert_eq!(script.calls(), 2);
}

// R5
#[tokio::test(start_paused = true)]
async fn no_copy_is_made_that_cannot_be_sent() {
    for (max, failures, copies) in [(1, 1, 0), (3, 0, 1), (3, 1, 2), (3, 2, 2), (3, 3, 2)] {
        let (_, probe) = failing(failures);
        let made = AtomicU32::new(0);
        let copy = |request: &&'static str| {
            made.fetch_add(1, SeqCst);
            Some(*request)
        };
        let service = builder().max_attempts(max).build().unwrap().layer().clone_with(&copy).layer(probe);
        let _ = service.oneshot("a").await;
        assert_eq!(made.load(SeqCst), copies, "{max} attempts, {failures} failures");
    }
}

// R6
#[tokio::test(start_paused = true)]
async fn the_verdict_decides_whether_ok_and_err_are_retried() {
    let cases: [(Reply, usize); 5] = [
        (Reply::Ok("fine"), 1),
        (Reply::Ok("bad"), 2),
        (Reply::Ok("slow down"), 2),
        (Reply::Err("down".into()), 2),
        (Reply::Err("ignore me".into()), 1),
    ];
    for (reply, calls) in cases {
        let (script, probe) = Script::new();
        script.reply(reply);
        let service = builder().build().unwrap().layer().classify_with(by_text).layer(probe);
        let _ = service.oneshot("a").await;
        assert_eq!(script.calls(), calls);
    }
}

// R3, R6
#[tokio::test(start_paused = true)]
async fn the_last_response_is_returned_even_if_it_is_a_failure() {
    let (script, probe) = Script::new();
    script.reply(Reply::Err("down".into())).reply(Reply::Ok("slow down")).reply(Reply::Ok("bad"));
    let service = builder().build().unwrap().layer().classify_with(by_text).layer(probe);
    assert_eq!(service.oneshot("a").await.unwrap(), "bad");
    assert_eq!(script.calls(), 3);
}

// R7, R11
#[tokio::test(start_paused = true)]
async fn every_request_has_its_own_backoff() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = times.clone();
    let start = now();
    let down = service_fn(move |request: &'static str| {
        log.lock().unwrap().push((request, (now() - start).as_millis()));
        async { Err::<(), _>(error("down")) }
    });
    let backoff = Backoff::exponential(ms(10), ms(1000)).jitter(Jitter::None);
    let service = builder().max_attempts(4).backoff(backoff).no_budget().build().unwrap().layer().layer(down);
    let late = async {
        tokio::time::sleep(ms(5)).await;
        service.clone().oneshot("b").await
    };
    let _ = tokio::join!(service.clone().oneshot("a"), late);
    let times = times.lock().unwrap();
    let of = |request| times.iter().filter(|(name, _)| *name == request).map(|(_, at)| *at).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), (vec![0, 10, 30, 70], vec![5, 15, 35, 75]));
}

// R12
#[tokio::test(start_paused = true)]
async fn a_failed_response_is_dropped_before_the_delay() {
    let response = Arc::new(());
    let given = response.clone();
    let bad = service_fn(move |(): ()| {
        let response = given.clone();
        async move { Ok::<_, BoxError>(response) }
    });
    let always = |_: Result<&Arc<()>, &BoxError>| Verdict::Failure;
    let mut service = builder().max_attempts(2).build().unwrap().layer().classify_with(always).layer(bad);
    let services = Arc::strong_count(&response);
    let mut call = task::spawn(service.ready().await.unwrap().call(()));
    assert_pending!(call.poll());
    assert_eq!(Arc::strong_count(&response), services, "only the services hold it");
    tokio::time::advance(ms(11)).await;
    assert_ready_ok!(call.poll());
}

// R13, K26
#[tokio::test(start_paused = true)]
async fn an_inner_bulkheads_permit_is_released_during_the_delay() {
    let bulkhead = Bulkhead::new("inner", 1).unwrap();
    for backpressure in [false, true] {
        let (_, probe) = failing(2);
        let retry = builder().build().unwrap().layer();
        let mut service = match backpressure {
            false => tower::util::BoxCloneService::new(retry.layer(bulkhead.layer().layer(probe))),
            true => tower::util::BoxCloneService::new(retry.layer(bulkhead.layer().backpressure().layer(probe))),
        };
        let mut call = task::spawn(service.ready().await.unwrap().call("a"));
        for _ in 0..2 {
            assert_pending!(call.poll());
            assert_eq!(bulkhead.snapshot().in_flight, 0);
            tokio::time::advance(ms(11)).await;
        }
        assert_ready_ok!(call.poll());
    }
}

/// A service that always fails, and the requests it received.
fn down() -> (impl Service<String, Response = (), Error = BoxError, Future = impl Send> + Clone, Arc<Mutex<Vec<String>>>)
{
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    let service = service_fn(move |request: String| {
        log.lock().unwrap().push(request);
        async { Err::<(), _>(error("down")) }
    });
    (service, sent)
}

// R33, R34
#[tokio::test(start_paused = true)]
async fn each_attempt_is_prepared_from_the_original_request() {
    let (service, sent) = down();
    let prepare = |attempt: u32, request: &mut String| request.push_str(&format!(", attempt {attempt}"));
    let service = builder().build().unwrap().layer().prepare_with(prepare).layer(service);
    service.oneshot("get".to_owned()).await.unwrap_err();
    assert_eq!(*sent.lock().unwrap(), ["get", "get, attempt 2", "get, attempt 3"]);
}

// R34
#[tokio::test(start_paused = true)]
async fn clone_with_idempotent_if_and_prepare_with_combine() {
    let (service, sent) = down();
    let layer = builder().build().unwrap().layer();
    let layer = layer
        .clone_with(|request: &String| Some(format!("copy of {request}")))
        .idempotent_if(|_: &String| true)
        .prepare_with(|_, request: &mut String| request.push('!'))
        .prepare_with(|_, request: &mut String| request.push('?'));
    layer.layer(service).oneshot("it".to_owned()).await.unwrap_err();
    assert_eq!(*sent.lock().unwrap(), ["it", "copy of it!?", "copy of copy of it!?"]);
}
