use super::Rejection;
use crate::{pattern::Pattern, verdict::Verdict};

/// The meaning of a rejection: one row of [`Rejection::semantics`].
///
/// Classifiers, retries, HTTP and gRPC responses, logs and metrics read it. HTTP and gRPC statuses
/// are plain numbers, so that the table needs no feature.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "http"), allow(dead_code))] // the statuses
pub(crate) struct Semantics {
    /// The pattern that rejects this way.
    pub(crate) pattern: Pattern,
    /// The label in logs and metrics.
    pub(crate) reason: &'static str,
    /// Whether the inner service may have processed the request.
    pub(crate) attempted: bool,
    /// When a retry makes another attempt.
    pub(crate) retry: RetryWhen,
    /// The default classifiers' verdict, which a breaker outside counts.
    pub(crate) verdict: Verdict,
    /// The status of the HTTP response.
    pub(crate) http_status: u16,
    /// The text of the HTTP response. It names no instance.
    pub(crate) http_detail: &'static str,
    /// The status of the gRPC response.
    pub(crate) grpc_status: i32,
}

/// When a retry makes another attempt after a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryWhen {
    /// Never: another attempt would be rejected, too.
    Never,
    /// After the rejection's `retry_after`.
    RetryAfter,
    /// If the request is idempotent and the verdict is a failure.
    Idempotent,
    /// If the next attempt reaches another instance.
    OtherInstance,
}

// `google.rpc.Code`
const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNAVAILABLE: i32 = 14;

impl Rejection {
    /// The table of rejections: one row per variant, and one more where a field changes the
    /// meaning.
    ///
    /// The documentation of [`error`](crate::error) shows it; a test compares the two.
    #[inline(never)] // no call that succeeds needs it
    pub(crate) fn semantics(&self) -> &'static Semantics {
        match self {
            Self::CircuitOpen { .. } => &Semantics {
                pattern: Pattern::CircuitBreaker,
                reason: "circuit_open",
                attempted: false,
                retry: RetryWhen::OtherInstance,
                verdict: Verdict::Ignored,
                http_status: 503,
                http_detail: "A dependency is not available.",
                grpc_status: UNAVAILABLE,
            },
            Self::CircuitRecovering { .. } => &Semantics {
                pattern: Pattern::CircuitBreaker,
                reason: "circuit_recovering",
                attempted: false,
                retry: RetryWhen::OtherInstance,
                verdict: Verdict::Ignored,
                http_status: 503,
                http_detail: "A dependency is recovering.",
                grpc_status: UNAVAILABLE,
            },
            Self::BulkheadFull { .. } => &Semantics {
                pattern: Pattern::Bulkhead,
                reason: "bulkhead_full",
                attempted: false,
                retry: RetryWhen::OtherInstance,
                verdict: Verdict::Ignored,
                http_status: 503,
                http_detail: "The server is at its limit.",
                grpc_status: RESOURCE_EXHAUSTED,
            },
            Self::QueueTimeout { .. } => &Semantics {
                pattern: Pattern::Bulkhead,
                reason: "queue_timeout",
                attempted: false,
                retry: RetryWhen::OtherInstance,
                verdict: Verdict::Ignored,
                http_status: 503,
                http_detail: "The server is at its limit.",
                grpc_status: RESOURCE_EXHAUSTED,
            },
            Self::RateLimited { retry_after: Some(_), .. } => &RATE_LIMITED,
            // The call costs more than the burst.
            Self::RateLimited { retry_after: None, .. } => &Semantics { retry: RetryWhen::Never, ..RATE_LIMITED },
            Self::TimedOut { attempted: true, cut_short: false, .. } => &TIMED_OUT,
            // The caller's deadline is over, also for another attempt, and says nothing about the
            // service.
            Self::TimedOut { attempted: true, cut_short: true, .. } => &CUT_SHORT,
            Self::TimedOut { attempted: false, .. } => &Semantics { attempted: false, ..CUT_SHORT },
        }
    }
}

const RATE_LIMITED: Semantics = Semantics {
    pattern: Pattern::RateLimiter,
    reason: "rate_limited",
    attempted: false,
    retry: RetryWhen::RetryAfter,
    verdict: Verdict::Ignored,
    http_status: 429,
    http_detail: "The rate limit is exceeded.",
    grpc_status: RESOURCE_EXHAUSTED,
};

const TIMED_OUT: Semantics = Semantics {
    pattern: Pattern::Timeout,
    reason: "timed_out",
    attempted: true,
    retry: RetryWhen::Idempotent,
    verdict: Verdict::Failure,
    http_status: 504,
    http_detail: "The request took too long.",
    grpc_status: DEADLINE_EXCEEDED,
};

const CUT_SHORT: Semantics = Semantics { retry: RetryWhen::Never, verdict: Verdict::Ignored, ..TIMED_OUT };

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    /// One rejection per row of the table.
    fn rejections() -> [Rejection; 9] {
        [
            Rejection::circuit_open("x", None),
            Rejection::circuit_recovering("x", 10),
            Rejection::bulkhead_full("x", 1),
            Rejection::queue_timeout("x", Duration::ZERO),
            Rejection::rate_limited("x", Some(Duration::ZERO), 1),
            Rejection::rate_limited("x", None, 1),
            Rejection::timed_out("x", Duration::ZERO, true),
            Rejection::cut_short("x", Duration::ZERO),
            Rejection::timed_out("x", Duration::ZERO, false),
        ]
    }

    /// The first cell of the row that the module docs have for this rejection. A new variant fails
    /// to compile here.
    fn documented_as(rejection: &Rejection) -> &'static str {
        match rejection {
            Rejection::CircuitOpen { .. } => "[`CircuitOpen`](Rejection::CircuitOpen)",
            Rejection::CircuitRecovering { .. } => "[`CircuitRecovering`](Rejection::CircuitRecovering)",
            Rejection::BulkheadFull { .. } => "[`BulkheadFull`](Rejection::BulkheadFull)",
            Rejection::QueueTimeout { .. } => "[`QueueTimeout`](Rejection::QueueTimeout)",
            Rejection::RateLimited { retry_after: Some(_), .. } => "[`RateLimited`](Rejection::RateLimited)",
            Rejection::RateLimited { retry_after: None, .. } => "`RateLimited`, without `retry_after`",
            Rejection::TimedOut { attempted: true, cut_short: false, .. } => "[`TimedOut`](Rejection::TimedOut)",
            Rejection::TimedOut { attempted: true, cut_short: true, .. } => "`TimedOut`, cut short by the caller",
            Rejection::TimedOut { attempted: false, .. } => "`TimedOut`, not attempted",
        }
    }

    fn documented_row(rejection: &Rejection) -> String {
        let semantics = rejection.semantics();
        let sent = if semantics.attempted { "maybe" } else { "no" };
        let retried = match semantics.retry {
            RetryWhen::Never => "no",
            RetryWhen::RetryAfter => "after `retry_after`",
            RetryWhen::Idempotent => "if idempotent",
            RetryWhen::OtherInstance => "on another instance",
        };
        let grpc = match semantics.grpc_status {
            DEADLINE_EXCEEDED => "DEADLINE_EXCEEDED",
            RESOURCE_EXHAUSTED => "RESOURCE_EXHAUSTED",
            UNAVAILABLE => "UNAVAILABLE",
            status => panic!("{status} has no name here"),
        };
        let (name, verdict, http) = (documented_as(rejection), semantics.verdict, semantics.http_status);
        format!("//! | {name} | {sent} | {retried} | {verdict} | {http}, `{grpc}` |")
    }

    #[test]
    fn the_module_docs_show_the_table() {
        let documented: Vec<_> =
            include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | ") && line.contains(", `")).collect();
        assert_eq!(documented, rejections().each_ref().map(documented_row));
    }

    #[test]
    fn reasons_differ_and_belong_to_one_pattern() {
        let rejections = rejections();
        let reasons: HashSet<_> = rejections.iter().map(|rejection| rejection.semantics().reason).collect();
        let labels: HashSet<_> =
            rejections.iter().map(|rejection| (rejection.semantics().reason, rejection.semantics().pattern)).collect();
        assert_eq!((reasons.len(), labels.len()), (6, 6));
    }

    #[test]
    fn a_rejection_that_was_attempted_is_retried_only_if_idempotent() {
        for rejection in rejections() {
            let Semantics { attempted, retry, .. } = *rejection.semantics();
            match retry {
                RetryWhen::Idempotent => assert!(attempted, "{rejection}"),
                RetryWhen::Never => {}
                RetryWhen::RetryAfter | RetryWhen::OtherInstance => assert!(!attempted, "{rejection}"),
            }
        }
    }
}
