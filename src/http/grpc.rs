use std::time::Duration;

use ::http::{HeaderMap, StatusCode};

use super::{ResponseHead, TransportError, classify, head, hint};
use crate::{
    classify::{Classify, Verdict},
    deadline,
};

/// Classifies gRPC responses by their `grpc-status`.
///
/// | `grpc-status` | verdict |
/// |---|---|
/// | `RESOURCE_EXHAUSTED` | throttled |
/// | `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, and unknown codes | failure |
/// | `CANCELLED` | ignored |
/// | `DEADLINE_EXCEEDED`, once the [deadline](crate::deadline::scope) set by the caller has passed | ignored |
/// | any other | success: the service did its work, and `NOT_FOUND` is a valid response |
/// | none, with the HTTP status 200 | success; failure if the body broke off |
/// | none, with another HTTP status | as with [`HttpClassifier`](super::HttpClassifier) |
///
/// Errors and rejections count as with [`HttpClassifier`](super::HttpClassifier).
///
/// The status is in the headers if a call fails before it has sent a message (a trailers-only
/// response). Otherwise it is in the trailers, after the body. Trailers are visible only under
/// [`full_response`](super::full_response); elsewhere, a response whose status is yet to come
/// counts as a success.
///
/// `grpc-retry-pushback-ms` tells a retry how long to wait; a negative value stops the retries.
/// With the feature `tonic`, the results of generated clients are classified too, a
/// `tonic::Response` or a `tonic::Status`. A status that the client itself made from an error
/// counts by that error's [origin](super::ErrorOrigin), not by the code that tonic chose for it:
///
/// ```
/// # #[cfg(feature = "tonic")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_rampart::{http::GrpcClassifier, retry::Retry};
///
/// # async fn say_hello(request: tonic::Request<&str>) -> Result<tonic::Response<String>, tonic::Status> {
/// #     Ok(tonic::Response::new(request.into_inner().to_owned()))
/// # }
/// let retry = Retry::attempts("greeter", 3)?;
/// let reply = retry.run_with(GrpcClassifier, |_attempt| say_hello(tonic::Request::new("Ada"))).await?;
/// # let _ = reply;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrpcClassifier;

const DEADLINE_EXCEEDED: u32 = 4;

fn verdict_for_code(code: u32) -> Verdict {
    match code {
        DEADLINE_EXCEEDED if deadline::callers_has_passed() => Verdict::Ignored,
        8 => Verdict::Throttled,
        1 => Verdict::Ignored,
        2 | 4 | 13 | 14 | 15 | 17.. => Verdict::Failure,
        _ => Verdict::Success,
    }
}

/// Returns the status, if it has arrived.
fn grpc_status(response: &impl ResponseHead) -> Option<u32> {
    // A malformed status is UNKNOWN.
    let code = |headers: &HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.trim().parse().unwrap_or(2));
    response.trailers().and_then(code).or_else(|| code(response.headers()))
}

impl<T, E> Classify<T, E> for GrpcClassifier
where
    T: ResponseHead,
    E: TransportError,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        let response = match result {
            Ok(response) => response,
            Err(error) => return classify::verdict_for_error(error),
        };
        match (grpc_status(response), response.status()) {
            (Some(code), _) => verdict_for_code(code),
            (None, StatusCode::OK) if response.is_broken() => Verdict::Failure,
            (None, StatusCode::OK) if response.is_unread() => Verdict::Ignored,
            (None, status) if classify::is_cut_short(status) => Verdict::Ignored,
            (None, status) => classify::verdict_for_status(status),
        }
    }

    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        result.err().is_none_or(E::was_attempted)
    }

    fn retry_after(&self, result: Result<&T, &E>) -> Option<Duration> {
        let response = result.ok()?;
        let pushback = response.trailers().and_then(hint::grpc_pushback);
        let pushback = pushback.or_else(|| hint::grpc_pushback(response.headers()));
        pushback.or_else(|| hint::retry_after(response.headers()))
    }

    fn mark_exhausted(&self, response: &mut T) {
        if let Some(extensions) = response.extensions_mut() {
            head::mark_exhausted(extensions);
        }
    }

    fn is_exhausted(&self, response: &T) -> Option<bool> {
        response.extensions().map(head::is_exhausted)
    }
}

#[cfg(feature = "tonic")]
mod status {
    use std::error::Error as _;

    use tonic::{Code, Response, Status};

    use super::*;
    use crate::error::{AsRejection, Rejection, find_rejection};

    impl<T> Classify<Response<T>, Status> for GrpcClassifier {
        fn classify(&self, result: Result<&Response<T>, &Status>) -> Verdict {
            match result {
                Ok(_) => Verdict::Success,
                // A status with a source is the client's own; the service's has none.
                Err(status) if status.source().is_some() => classify::verdict_for_error(status),
                Err(status) => verdict_for_code(i32::from(status.code()).unsigned_abs()),
            }
        }

        fn was_attempted(&self, result: Result<&Response<T>, &Status>) -> bool {
            result.err().is_none_or(TransportError::was_attempted)
        }

        fn retry_after(&self, result: Result<&Response<T>, &Status>) -> Option<Duration> {
            hint::grpc_pushback(result.err()?.metadata().as_ref())
        }
    }

    /// Converts a rejection into the status with its gRPC code
    /// ([`error`](crate::error#what-a-rejection-means)). The rejection is the status's source.
    impl From<Rejection> for Status {
        fn from(rejection: Rejection) -> Self {
            let mut status = Self::new(Code::from(rejection.semantics().grpc_status), rejection.reason());
            status.set_source(std::sync::Arc::new(rejection));
            status
        }
    }

    impl AsRejection for Status {
        fn as_rejection(&self) -> Option<&Rejection> {
            find_rejection(self)
        }
    }
}
