//! Classification of results: by the crate's classifiers and by closures.

use std::time::Duration;

use tower_rampart::{Classify, DefaultClassifier, Name, Rejection, Verdict};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn rejections() -> [(Rejection, Verdict); 6] {
    [
        (Rejection::circuit_open("x", None), Verdict::Ignored),
        (Rejection::bulkhead_full("x", 1), Verdict::Ignored),
        (Rejection::queue_timeout("x", Duration::ZERO), Verdict::Ignored),
        (Rejection::rate_limited("x", None, 1), Verdict::Ignored),
        (Rejection::timed_out("x", Duration::ZERO, true), Verdict::Failure),
        (Rejection::timed_out("x", Duration::ZERO, false), Verdict::Ignored),
    ]
}

// B28, B29
#[test]
fn by_default_rejections_are_ignored_and_timeouts_are_failures() {
    for (rejection, verdict) in rejections() {
        assert_eq!(rejection.default_verdict(), verdict, "{rejection}");
        assert_eq!(Classify::<(), BoxError>::classify_rejection(&DefaultClassifier, &rejection), verdict);
    }
    assert_eq!(DefaultClassifier.classify(Ok::<_, &BoxError>(&1)), Verdict::Success);
    assert_eq!(DefaultClassifier.classify(Err::<&(), _>(&BoxError::from("boom"))), Verdict::Failure);
}

#[test]
fn a_closure_classifies_the_services_own_results() {
    let by_status = |result: Result<&u16, &Rejection>| match result {
        Ok(429) => Verdict::Throttled,
        Ok(500..) => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    let verdicts = [Ok(&200), Ok(&429), Ok(&503)].map(|result| by_status.classify(result));
    assert_eq!(verdicts, [Verdict::Success, Verdict::Throttled, Verdict::Failure]);
    let open = Rejection::circuit_open("x", None);
    assert_eq!(Classify::<u16, Rejection>::classify_rejection(&by_status, &open), Verdict::Ignored);
    assert_eq!((by_status.was_attempted(Ok(&429)), by_status.retry_after(Ok(&429))), (true, None));
}

#[test]
fn static_and_owned_names_compare_and_hash_alike() {
    let (fixed, made) = (Name::from("host-7"), Name::from(format!("host-{}", 7)));
    assert_eq!(fixed, made);
    assert_eq!((made.as_str(), made.as_ref(), made.clone() == *"host-7"), ("host-7", "host-7", true));
    assert!(made == "host-7" && made != "host-8");
    assert_eq!(format!("{fixed} {made:?} [{made:>8}]"), "host-7 \"host-7\" [  host-7]");
    assert!(std::collections::HashSet::from([fixed]).contains(&made), "equal names hash alike");
}
