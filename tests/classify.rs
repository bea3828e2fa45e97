//! Classification of results: by the crate's classifiers and by closures.

use std::{convert::Infallible, time::Duration};

use tower_rampart::{
    AsRejection, Classify, ClassifyFn, DefaultClassifier, Error, Name, Rejection, ResultClassifier, Verdict,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn rejections() -> [(Rejection, Verdict); 6] {
    [
        (Rejection::circuit_open("x", None), Verdict::Ignored),
        (Rejection::bulkhead_full("x", 1), Verdict::Ignored),
        (Rejection::queue_timeout("x", Duration::ZERO), Verdict::Ignored),
        (Rejection::rate_limited("x", None, 1), Verdict::Ignored),
        (Rejection::timed_out("x", Duration::ZERO, true), Verdict::Failure),
        (Rejection::timed_out("x", Duration::ZERO, false), Verdict::Failure),
    ]
}

// B28, B29
#[test]
fn by_default_rejections_are_ignored_and_timeouts_are_failures() {
    fn classify<E: AsRejection>(error: &E) -> (Verdict, bool) {
        let classifier = &DefaultClassifier as &dyn Classify<(), E>;
        (classifier.classify(Err(error)), classifier.rejection(error).is_some())
    }

    for (rejection, verdict) in rejections() {
        assert_eq!(classify(&rejection), (verdict, true), "{rejection}");
        assert_eq!(classify(&BoxError::from(rejection.clone())), (verdict, true));
        assert_eq!(classify(&std::io::Error::from(rejection.clone())), (verdict, true));
        assert_eq!(classify(&Error::<BoxError>::from(rejection)), (verdict, true));
    }
    assert_eq!(classify(&BoxError::from("boom")), (Verdict::Failure, false));
    assert_eq!(classify(&Error::Service("boom")), (Verdict::Failure, false));
    let ok = Ok::<(), Infallible>(());
    assert_eq!(DefaultClassifier.classify(ok.as_ref()), Verdict::Success);
}

#[test]
fn the_result_classifier_counts_every_error_as_a_failure() {
    assert_eq!(ResultClassifier.classify(Ok::<_, &BoxError>(&1)), Verdict::Success);
    for (rejection, _) in rejections() {
        assert_eq!(ResultClassifier.classify(Err::<&(), _>(&rejection)), Verdict::Failure);
    }
}

#[test]
fn a_closure_finds_rejections_only_when_wrapped_in_classify_fn() {
    let by_status = |result: Result<&u16, &Rejection>| match result {
        Ok(429) => Verdict::Throttled,
        Ok(500..) => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Ignored,
    };
    let open = Rejection::circuit_open("x", None);
    let verdicts = [Ok(&200), Ok(&429), Ok(&503), Err(&open)].map(|result| by_status.classify(result));
    assert_eq!(verdicts, [Verdict::Success, Verdict::Throttled, Verdict::Failure, Verdict::Ignored]);
    assert_eq!(Classify::<u16, _>::rejection(&by_status, &open), None);
    assert_eq!(by_status.retry_after(Ok(&429)), None);
    let wrapped = ClassifyFn::new(by_status);
    assert_eq!(wrapped.classify(Ok(&429)), Verdict::Throttled);
    assert_eq!(Classify::<u16, _>::rejection(&wrapped, &open), Some(&open));
    assert_eq!(format!("{wrapped:?}"), "ClassifyFn { .. }");
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
