use std::any::type_name;

use crate::{
    classify::{Classify, DefaultClassifier, Verdict},
    error::AsRejection,
    event::{EventEmitter, Misfit},
};

/// Returns how a result counts for a breaker or a retry: the classifier decides about the service's
/// own results and, where it overrides the default, about rejections.
#[inline(always)]
pub(crate) fn classify_result<C, T, E>(events: &EventEmitter, classify: &C, result: Result<&T, &E>) -> Verdict
where
    C: Classify<T, E>,
    E: AsRejection,
{
    match result.map_err(|error| (error, error.as_rejection())) {
        Err((_, Some(rejection))) => classify.classify_rejection(rejection),
        Ok(response) => {
            if overlooks_status::<C, T>() {
                events.warn_once(Misfit::Classifier);
            }
            classify.classify(Ok(response))
        }
        Err((error, None)) => classify.classify(Err(error)),
    }
}

/// Whether HTTP responses are classified by the default classifier, to which a 500 is a success.
///
/// The types are recognized by their names, which the compiler compares: nothing of it remains
/// where they are others. It serves a warning only.
#[inline(always)]
fn overlooks_status<C, T>() -> bool {
    const RESPONSES: [&str; 3] = [
        "http::response::Response<",
        "reqwest::async_impl::response::Response",
        "tower_rampart::http::full_response::",
    ];
    type_name::<C>() == type_name::<DefaultClassifier>()
        && RESPONSES.into_iter().any(|name| type_name::<T>().starts_with(name))
}
