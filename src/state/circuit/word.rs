//! The packed word of a circuit.

use std::time::Duration;

use crate::state::{time::Nanos, transition::CircuitState};

/// A tick of deadlines and leases is 2^18 ns, a quarter of a millisecond.
const TICK_BITS: u32 = 18;
pub(super) const MAX_TICK: u64 = (1 << 40) - 1;

pub(super) const GENERATION_MASK: u32 = (1 << 18) - 1;
pub(crate) const MAX_PROBES: u32 = (1 << 13) - 1;
pub(crate) const MAX_CONSECUTIVE_FAILURES: u32 = (1 << 16) - 1;
const PROBES_ADMITTED_MASK: u32 = (1 << 14) - 1;
const MAX_REOPEN_COUNT: u32 = 15;

/// The state of a circuit.
///
/// ```text
///  63 62 | 61..58       | 57..40     | 39..0
///  state | reopen count | generation | payload
///  Closed:   consecutive failures: 16 | recovering: 1
///  Open:     deadline, in ticks: 40 (9.1 years)
///  HalfOpen: probes in flight: 13 | probes that succeeded: 13 | probes admitted: 14, wrapping
///  manual:   ForcedOpen or Disabled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitWord {
    /// Times that the circuit has opened again since it was last closed; saturates.
    pub(super) reopen_count: u32,
    /// Counts transitions and reclaims of probe slots: after each, older calls no longer count.
    pub(super) generation: u32,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed { consecutive_failures: u32, recovering: bool },
    Open { deadline: u64 },
    HalfOpen { in_flight: u32, succeeded: u32, probes_admitted: u32 },
    ForcedOpen,
    Disabled,
}

impl Phase {
    pub(super) fn state(self) -> CircuitState {
        match self {
            Self::Closed { .. } => CircuitState::Closed,
            Self::Open { .. } => CircuitState::Open,
            Self::HalfOpen { .. } => CircuitState::HalfOpen,
            Self::ForcedOpen => CircuitState::ForcedOpen,
            Self::Disabled => CircuitState::Disabled,
        }
    }
}

impl CircuitWord {
    pub(super) fn unpack(word: u64) -> Self {
        let payload = word & MAX_TICK;
        let phase = match word >> 62 {
            0 => Phase::Closed {
                consecutive_failures: payload as u32 & MAX_CONSECUTIVE_FAILURES,
                recovering: payload >> 16 & 1 == 1,
            },
            1 => Phase::Open { deadline: payload },
            2 => Phase::HalfOpen {
                in_flight: payload as u32 & MAX_PROBES,
                succeeded: (payload >> 13) as u32 & MAX_PROBES,
                probes_admitted: (payload >> 26) as u32,
            },
            _ if payload == 0 => Phase::ForcedOpen,
            _ => Phase::Disabled,
        };
        Self { reopen_count: (word >> 58 & 15) as u32, generation: (word >> 40) as u32 & GENERATION_MASK, phase }
    }

    pub(super) fn pack(self) -> u64 {
        let (state, payload) = match self.phase {
            Phase::Closed { consecutive_failures, recovering } => {
                let failures = u64::from(consecutive_failures.min(MAX_CONSECUTIVE_FAILURES));
                (0, u64::from(recovering) << 16 | failures)
            }
            Phase::Open { deadline } => (1, deadline),
            Phase::HalfOpen { in_flight, succeeded, probes_admitted } => (
                2,
                u64::from(probes_admitted & PROBES_ADMITTED_MASK) << 26
                    | u64::from(succeeded) << 13
                    | u64::from(in_flight),
            ),
            Phase::ForcedOpen => (3, 0),
            Phase::Disabled => (3, 1),
        };
        state << 62 | u64::from(self.reopen_count) << 58 | u64::from(self.generation) << 40 | payload
    }

    /// Begins the next generation, in this phase.
    pub(super) fn next_generation(self, reopen_count: u32, phase: Phase) -> Self {
        Self {
            reopen_count: reopen_count.min(MAX_REOPEN_COUNT),
            generation: self.generation.wrapping_add(1) & GENERATION_MASK,
            phase,
        }
    }
}

/// The generation of a circuit that is closed and not recovering: it admits every call.
#[inline]
pub(super) fn generation_if_fully_closed(word: u64) -> Option<u32> {
    (word >> 62 == 0 && word >> 16 & 1 == 0).then_some((word >> 40) as u32 & GENERATION_MASK)
}

/// The deadline of an open circuit.
#[inline]
pub(super) fn deadline_if_open(word: u64) -> Option<u64> {
    (word >> 62 == 1).then_some(word & MAX_TICK)
}

/// Whether the circuit is closed, in the generation of this call, without consecutive failures and
/// not recovering: a success does not change the word. Always false for a probe: the shift moves
/// its probe bit into the reopen count, which is masked out of the word.
#[inline]
pub(super) fn is_closed_without_failures(word: u64, admitted: u32) -> bool {
    const REOPEN_COUNT: u64 = 15 << 58;
    word & !REOPEN_COUNT == u64::from(admitted) << 40
}

/// Rounded down, like the deadlines it is compared with: a clock that advances by exactly the open
/// time reaches the deadline.
#[inline]
pub(super) fn tick(now: Nanos) -> u64 {
    (now.get() >> TICK_BITS).min(MAX_TICK)
}

pub(super) fn deadline(now: Nanos, wait: Duration) -> u64 {
    tick(now.saturating_add(wait))
}

/// The time at which a deadline is reached.
#[inline]
pub(super) fn reached_at(deadline: u64) -> Nanos {
    Nanos::new(deadline << TICK_BITS)
}
