//! Admission: the fast paths, the probes' lease and the recovery.

use std::time::Duration;

use super::{
    Admission, Admitted, Applied, Circuit, PeekedAdmission,
    step::{CircuitEvent, LazyInputs, StepInputs},
    word::{CircuitWord, MAX_TICK, Phase, deadline, deadline_if_open, generation_if_fully_closed, reached_at, tick},
};
use crate::state::{
    atomics::Ordering,
    drive::{Step, drive},
    time::{CompactDuration, Nanos},
};

impl Circuit {
    /// Admits a call to a circuit that is closed and not recovering. One load.
    #[inline(always)]
    pub(crate) fn try_admit_fast(&self) -> Option<Admitted> {
        let generation = generation_if_fully_closed(self.word.load(Ordering::Acquire))?;
        Some(Admitted::call(generation))
    }

    /// The time left until the deadline of an open circuit. Otherwise an error, with the time if
    /// the clock was read. One load.
    #[inline(always)]
    pub(crate) fn try_reject_fast(&self, now: impl FnOnce() -> Nanos) -> Result<CompactDuration, Option<Nanos>> {
        let deadline = deadline_if_open(self.word.load(Ordering::Acquire)).ok_or(None)?;
        let now = now();
        if tick(now) < deadline {
            Ok(CompactDuration::from_nanos(reached_at(deadline).get() - now.get()))
        } else {
            Err(Some(now))
        }
    }

    /// Asks for admission.
    pub(crate) fn admit(&self, now: impl Fn() -> Nanos) -> Admission {
        let mut inputs = LazyInputs::new(now, |_| Duration::ZERO);
        let (mut seen, mut expired) = (self.word.load(Ordering::Acquire), None);
        loop {
            let Applied { before, after, transition } = self.apply(seen, CircuitEvent::Admit { expired }, &mut inputs);
            return match after.phase {
                Phase::Closed { recovering: true, .. } => self.admit_share(after, &mut inputs),
                Phase::Closed { .. } | Phase::Disabled => Admission::Admitted(Admitted::call(after.generation)),
                Phase::Open { deadline } => {
                    let left = reached_at(deadline).saturating_since(inputs.now());
                    Admission::Rejected { retry_after: Some(left) }
                }
                Phase::ForcedOpen => Admission::Rejected { retry_after: None },
                Phase::HalfOpen { .. } if after != before => {
                    Admission::Probe(Admitted::probe(after.generation), transition)
                }
                // All probe slots are taken.
                Phase::HalfOpen { .. } if tick(inputs.now()) < self.lease_expiry(after, inputs.now()) => {
                    Admission::Rejected { retry_after: None }
                }
                Phase::HalfOpen { .. } => {
                    (seen, expired) = (after.pack(), Some(after));
                    continue;
                }
            };
        }
    }

    /// The admission that a caller would get now; takes no probe slot. During a recovery it may
    /// still be rejected.
    ///
    /// Arms the lease where a caller would be rejected: callers that only peek must not wait for a
    /// lost probe forever.
    pub(crate) fn peek_admission(&self, now: impl Fn() -> Nanos) -> PeekedAdmission {
        let word = self.load();
        if matches!(word.phase, Phase::Closed { .. } | Phase::Disabled) {
            return PeekedAdmission::Admit;
        }
        let mut inputs = LazyInputs::new(now, |_| Duration::ZERO);
        let (next, _) = word.step(CircuitEvent::Admit { expired: None }, &self.config, &mut inputs);
        match next.phase {
            Phase::Open { deadline } => PeekedAdmission::Reject { until: Some(reached_at(deadline)) },
            Phase::HalfOpen { .. } if next == word => {
                let expiry = self.lease_expiry(word, inputs.now());
                if tick(inputs.now()) < expiry {
                    PeekedAdmission::Reject { until: Some(reached_at(expiry)) }
                } else {
                    PeekedAdmission::AdmitProbe
                }
            }
            Phase::HalfOpen { .. } => PeekedAdmission::AdmitProbe,
            Phase::ForcedOpen | Phase::Closed { .. } | Phase::Disabled => PeekedAdmission::Reject { until: None },
        }
    }

    /// The tick at which the probes of this word lose their slots, which are all taken. Arms the
    /// lease unless it is armed for the same generation and number of probes admitted.
    fn lease_expiry(&self, word: CircuitWord, now: Nanos) -> u64 {
        let Phase::HalfOpen { probes_admitted, .. } = word.phase else { return 0 };
        let tag = u64::from(word.generation & 0xFFF) << 52 | u64::from(probes_admitted & 0xFFF) << 40;
        drive(&self.lease, |lease| {
            if lease & !MAX_TICK == tag {
                Step::Keep(lease & MAX_TICK)
            } else {
                let expiry = deadline(now, self.config.probe_timeout);
                Step::Write(tag | expiry, expiry)
            }
        })
    }

    /// The tick at which the recovery of this generation began: now, unless it has begun. The call
    /// that closes the circuit begins it, or a caller that comes right after the swap.
    pub(super) fn begin_recovery(&self, generation: u32, now: Nanos) -> u64 {
        let tag = u64::from(generation) << 40;
        drive(&self.recovery, |recovery| {
            if recovery & !MAX_TICK == tag {
                Step::Keep(recovery & MAX_TICK)
            } else {
                let start = tick(now);
                Step::Write(tag | start, start)
            }
        })
    }

    /// Admits a share of the callers that grows from a tenth to all. Spread evenly: the multiples
    /// of the golden ratio fill the circle without gaps (a Weyl sequence), so no random numbers are
    /// needed.
    fn admit_share(&self, word: CircuitWord, inputs: &mut impl StepInputs) -> Admission {
        const FIRST_SHARE: f64 = 0.1;
        let generation = word.generation;
        let admitted = Admission::Admitted(Admitted::call(generation));
        let start = self.begin_recovery(generation, inputs.now());
        let Some(progress) = self.config.recovery_progress(start, inputs.now()) else {
            self.apply(word.pack(), CircuitEvent::Recovered { generation }, inputs);
            return admitted;
        };
        let share = FIRST_SHARE + (1.0 - FIRST_SHARE) * progress;
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if (arrival >> 11) as f64 / (1_u64 << 53) as f64 <= share {
            admitted
        } else {
            Admission::RejectedInRecovery { admitted_percent: (share * 100.0) as u32 }
        }
    }
}
