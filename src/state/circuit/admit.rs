//! The way in: admission, probes and their lease, the recovery.

use std::time::Duration;

use super::{
    Admission, Admitted, Circuit, PeekedAdmission, transition,
    word::{
        CircuitWord, Phase, deadline, deadline_if_open, generation_if_fully_closed, ramp_progress, reached_at, tick,
    },
};
use crate::state::{
    atomics::Ordering,
    drive::{Step, drive},
    time::Nanos,
    transition::Cause,
};

impl Circuit {
    /// Admission to a circuit that lets everybody in without a look at anything else. One load.
    #[inline(always)]
    pub(crate) fn try_admit_fast(&self) -> Option<Admitted> {
        let generation = generation_if_fully_closed(self.word.load(Ordering::Acquire))?;
        Some(Admitted::call(generation))
    }

    /// The nanoseconds for which an open circuit will refuse yet; or else, the time if it was read to see that. One load.
    #[inline]
    pub(crate) fn try_reject_fast(&self, now: impl FnOnce() -> Nanos) -> Result<u64, Option<Nanos>> {
        let deadline = deadline_if_open(self.word.load(Ordering::Acquire)).ok_or(None)?;
        let now = now();
        if tick(now) < deadline { Ok(reached_at(deadline).get() - now.get()) } else { Err(Some(now)) }
    }

    /// Asks for admission.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Nanos) -> Admission {
        let word = self.load();
        match word.phase {
            Phase::Closed { recovery_start: None, .. } | Phase::Disabled => {
                Admission::Admitted(Admitted::call(word.generation))
            }
            Phase::ForcedOpen => Admission::Rejected { retry_after: None },
            _ => self.admit_in_time(word, now()),
        }
    }

    /// The states in which time decides.
    fn admit_in_time(&self, mut word: CircuitWord, now: Nanos) -> Admission {
        loop {
            let admitted = Admitted::call(word.generation);
            let (next, transition) = match word.phase {
                Phase::Closed { recovery_start: None, .. } | Phase::Disabled => return Admission::Admitted(admitted),
                Phase::ForcedOpen => return Admission::Rejected { retry_after: None },
                Phase::Closed { consecutive_failures, recovery_start: Some(start) } => match self
                    .recovery_left(start, now)
                {
                    Some(left) => return self.admit_share(admitted, left),
                    None => {
                        let recovered =
                            CircuitWord { phase: Phase::Closed { consecutive_failures, recovery_start: None }, ..word };
                        self.swap(word, recovered);
                        word = self.load();
                        continue;
                    }
                },
                Phase::Open { deadline } if tick(now) < deadline => {
                    let left = reached_at(deadline).saturating_since(now);
                    return Admission::Rejected { retry_after: Some(left) };
                }
                Phase::Open { .. } => {
                    let next = word
                        .next(word.reopen_count, Phase::HalfOpen { in_flight: 1, succeeded: 0, probes_admitted: 1 });
                    (next, Some(transition(word, next, Cause::OpenTimeout)))
                }
                Phase::HalfOpen { in_flight, succeeded, probes_admitted } if in_flight < self.config.probes => {
                    let phase =
                        Phase::HalfOpen { in_flight: in_flight + 1, succeeded, probes_admitted: probes_admitted + 1 };
                    (CircuitWord { phase, ..word }, None)
                }
                Phase::HalfOpen { succeeded, probes_admitted, .. } => {
                    if tick(now) < self.lease(word.generation, probes_admitted, now) {
                        return Admission::Rejected { retry_after: None };
                    }
                    // A new generation takes back the places of all probes that are silent. What others of them have
                    // shown stays: else one in a few that hangs would keep a circuit from closing for ever.
                    (
                        word.next(word.reopen_count, Phase::HalfOpen { in_flight: 1, succeeded, probes_admitted: 1 }),
                        None,
                    )
                }
            };
            if self.swap(word, next) {
                return Admission::Probe(Admitted::probe(next.generation), transition);
            }
            word = self.load();
        }
    }

    /// Turned away while half-open: the tick at which silent probes lose their places. Arms the lease, if need be.
    fn lease(&self, generation: u32, probes_admitted: u32, now: Nanos) -> u64 {
        const TICK: u64 = (1 << 40) - 1;
        let tag = u64::from(generation & 0xFFF) << 52 | u64::from(probes_admitted & 0xFFF) << 40;
        drive(&self.lease, |lease| {
            if lease & !TICK == tag {
                Step::Keep(lease & TICK)
            } else {
                let expiry = deadline(now, self.config.probe_timeout);
                Step::Write(tag | expiry, expiry)
            }
        })
    }

    fn recovery_left(&self, start: u32, now: Nanos) -> Option<(f64, Duration)> {
        let recovery = self.config.recovery?;
        let progress = ramp_progress(start, now, recovery);
        (progress < 1.0).then(|| (progress, recovery.mul_f64(1.0 - progress)))
    }

    /// A share of the callers that grows from a tenth to all. Spread evenly: the multiples of the golden ratio fill the
    /// circle without gaps (a Weyl sequence), so no random numbers are needed.
    fn admit_share(&self, admitted: Admitted, (progress, left): (f64, Duration)) -> Admission {
        const FIRST_SHARE: f64 = 0.1;
        let share = FIRST_SHARE + (1.0 - FIRST_SHARE) * progress;
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if (arrival >> 11) as f64 / (1_u64 << 53) as f64 <= share {
            Admission::Admitted(admitted)
        } else {
            Admission::Rejected { retry_after: Some(left) }
        }
    }

    /// Whether a call would be admitted; takes no place. During a recovery it would perhaps. Arms the lease where a caller
    /// would be turned away: those who only look must not wait for a lost probe for ever.
    pub(crate) fn peek_admission(&self, now: impl Fn() -> Nanos) -> PeekedAdmission {
        let word = self.load();
        match word.phase {
            Phase::Closed { .. } | Phase::Disabled => PeekedAdmission::Admit,
            Phase::ForcedOpen => PeekedAdmission::Reject { until: None },
            Phase::Open { deadline } if tick(now()) < deadline => {
                PeekedAdmission::Reject { until: Some(reached_at(deadline)) }
            }
            Phase::Open { .. } => PeekedAdmission::AdmitProbe,
            Phase::HalfOpen { in_flight, .. } if in_flight < self.config.probes => PeekedAdmission::AdmitProbe,
            Phase::HalfOpen { probes_admitted, .. } => {
                let now = now();
                let expiry = self.lease(word.generation, probes_admitted, now);
                if tick(now) < expiry {
                    PeekedAdmission::Reject { until: Some(reached_at(expiry)) }
                } else {
                    PeekedAdmission::AdmitProbe
                }
            }
        }
    }
}
