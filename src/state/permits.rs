//! The permit counter of the bulkhead.

use super::{
    LAPSE_AFTER,
    atomics::{AtomicU32, AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::Nanos,
};

/// The highest limit. A higher one has the same effect.
pub(crate) const MAX_LIMIT: u32 = (1 << IN_FLIGHT_BITS) - 1;

const IN_FLIGHT_BITS: u32 = 24;
const POOL_BITS: u32 = 16;
const POOL_MAX: u32 = (1 << POOL_BITS) - 1;
const EPOCH_BITS: u32 = 7;
const EPOCH_MASK: u8 = (1 << EPOCH_BITS) - 1;

/// Counts permits and reservations in one word, against a limit that may change.
///
/// ```text
/// word: [waiters: 1 | epoch: 7 | old: 16 | fresh: 16 | in flight: 24]
/// ```
///
/// A permit is in use by a call, or reserved for one: by a service that is ready, or for a waiter
/// that was granted it. A call must [claim](Self::claim) its reservation before it uses the permit,
/// because a reservation lapses when its owner does not use it in time. So an owner that is never
/// polled again cannot keep a permit that other callers need.
///
/// Reservations are counted in two pools, not listed. A new one is fresh, and carries the epoch in
/// which it was made. A caller that finds no permit begins an epoch, if there are no old
/// reservations: all fresh ones become old. From [`LAPSE_AFTER`] later on, callers take the permits
/// of old ones. An owner claims from the pool of its epoch; if that is empty, or the epoch is
/// further back, its reservation has lapsed. So a reservation costs no more than its count, and the
/// clock is read only by callers that find no permit while some are reserved.
///
/// Invariants:
/// - permits.I1 `in flight` is the number of permits that exist, reserved ones included.
/// - permits.I2 a permit is acquired when `in flight < limit` and there are no waiters at its swap,
///   or it is granted to a waiter, or it is taken from a reservation that has lapsed.
/// - permits.I3 a rejection has seen `in flight >= limit`, or a waiter: new callers do not overtake
///   waiters, except to take a lapsed reservation.
/// - permits.I4 no permit is granted or taken while `in flight > limit`: a lowered limit takes
///   effect as permits are released.
/// - permits.I5 each reservation is used once: claimed, released, or taken after it has lapsed.
/// - permits.I6 a reservation that is younger than [`LAPSE_AFTER`] is not taken.
///
/// The epoch wraps: an owner that returns exactly k * 128 epochs later, after its reservation has
/// lapsed, uses a fresh reservation of another owner, which then finds its own lapsed. A thread
/// that is suspended while it begins an epoch makes reservations appear older by that time. Neither
/// affects I1 to I5. At most 65,535 reservations are counted per pool; one beyond that never
/// lapses.
///
/// Only the owner of the queue changes `waiters`, under its lock; [`release`](Self::release) leaves
/// waiters to it. Cost: acquire 2 loads and 1 RMW, rejection 2 loads, release 1 load and 1 RMW,
/// claim 1 load and 1 RMW; no clock. A rejection while permits are reserved: the clock, 1 load and
/// at most 2 RMWs more.
#[derive(Debug)]
pub(crate) struct Permits {
    word: Padded<AtomicU64>,
    // Read by every call and rarely written: on a line of its own, it stays shared between all
    // cores.
    limit: Padded<AtomicU32>,
    /// When the epoch began. Written before the word is.
    epoch_began: AtomicU64,
    /// Whether waiters have let their grants lapse lately: 1 or 0.
    grants_lapse: AtomicU32,
}

/// The permit was not released, because there are waiters: the queue must hand it on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HasWaiters;

/// A permit that is reserved for a call. It must be [claimed](Permits::claim), or
/// [released](Permits::release_reservation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// [`UNCOUNTED`] if the pool was full.
    epoch: u8,
}

const UNCOUNTED: u8 = u8::MAX;

/// How a permit is granted to a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Other callers cannot take it before it lapses.
    Exclusive,
    /// Other callers may take it immediately: the waiter may never be polled again.
    Open,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct PermitsWord {
    in_flight: u32,
    fresh: u32,
    old: u32,
    epoch: u8,
    waiters: bool,
}

impl PermitsWord {
    #[inline]
    fn unpack(word: u64) -> Self {
        Self {
            in_flight: word as u32 & MAX_LIMIT,
            fresh: (word >> IN_FLIGHT_BITS) as u32 & POOL_MAX,
            old: (word >> (IN_FLIGHT_BITS + POOL_BITS)) as u32 & POOL_MAX,
            epoch: (word >> (IN_FLIGHT_BITS + 2 * POOL_BITS)) as u8 & EPOCH_MASK,
            waiters: word >> 63 != 0,
        }
    }

    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.waiters) << 63
            | u64::from(self.epoch) << (IN_FLIGHT_BITS + 2 * POOL_BITS)
            | u64::from(self.old) << (IN_FLIGHT_BITS + POOL_BITS)
            | u64::from(self.fresh) << IN_FLIGHT_BITS
            | u64::from(self.in_flight)
    }

    #[inline]
    fn is_free(self, limit: u32) -> bool {
        !self.waiters && self.in_flight < limit
    }

    #[inline]
    fn has_reservations(self) -> bool {
        self.fresh > 0 || self.old > 0
    }

    #[inline]
    fn with_in_flight(self, in_flight: u32) -> Self {
        Self { in_flight, ..self }
    }

    /// Reserves one of the permits in flight.
    #[inline]
    fn reserve(self) -> (Self, Reservation) {
        if self.fresh == POOL_MAX {
            return (self, Reservation { epoch: UNCOUNTED });
        }
        (Self { fresh: self.fresh + 1, ..self }, Reservation { epoch: self.epoch })
    }

    fn reserve_old(self) -> (Self, Reservation) {
        if self.old == POOL_MAX {
            return (self, Reservation { epoch: UNCOUNTED });
        }
        (Self { old: self.old + 1, ..self }, Reservation { epoch: self.previous_epoch() })
    }

    /// Removes a reservation from its pool, unless it has lapsed.
    #[inline]
    fn claim(self, Reservation { epoch }: Reservation) -> Option<Self> {
        if epoch == UNCOUNTED {
            Some(self)
        } else if epoch == self.epoch {
            Some(Self { fresh: self.fresh.checked_sub(1)?, ..self })
        } else if epoch == self.previous_epoch() {
            Some(Self { old: self.old.checked_sub(1)?, ..self })
        } else {
            None
        }
    }

    fn previous_epoch(self) -> u8 {
        self.epoch.wrapping_sub(1) & EPOCH_MASK
    }

    /// Grants one of the permits in flight to the first waiter.
    fn grant(self, grant: Grant, is_last: bool) -> (Self, Reservation) {
        let (word, reservation) = match grant {
            Grant::Exclusive => self.reserve(),
            Grant::Open => self.reserve_old(),
        };
        (Self { waiters: !is_last, ..word }, reservation)
    }
}

impl Permits {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            word: Padded(AtomicU64::new(0)),
            limit: Padded(AtomicU32::new(limit.min(MAX_LIMIT))),
            epoch_began: AtomicU64::new(0),
            grants_lapse: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Sets the limit. A caller that raises it must then admit waiters.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit.min(MAX_LIMIT), Ordering::Release);
    }

    /// The permits in flight, and those of them that are reserved, at one moment.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let PermitsWord { in_flight, fresh, old, .. } = PermitsWord::unpack(self.word.load(Ordering::Acquire));
        (in_flight, fresh + old)
    }

    /// Acquires a permit, unless all are in flight or there are waiters. Takes the permit of a
    /// reservation that has lapsed.
    #[inline]
    pub(crate) fn try_acquire(&self, now: impl FnOnce() -> Nanos) -> bool {
        let limit = self.limit();
        let acquired = drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.is_free(limit) {
                Step::Write(word.with_in_flight(word.in_flight + 1).pack(), Ok(()))
            } else {
                Step::Keep(Err(word.has_reservations()))
            }
        });
        match acquired {
            Ok(()) => true,
            Err(has_reservations) => has_reservations && self.take_lapsed(now),
        }
    }

    /// Acquires a permit as [`try_acquire`](Self::try_acquire) does, and reserves it.
    #[inline]
    pub(crate) fn try_reserve(&self, now: impl FnOnce() -> Nanos) -> Option<Reservation> {
        let limit = self.limit();
        let reserved = drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.is_free(limit) {
                let (word, reservation) = word.with_in_flight(word.in_flight + 1).reserve();
                Step::Write(word.pack(), Ok(reservation))
            } else {
                Step::Keep(Err(word.has_reservations()))
            }
        });
        match reserved {
            Ok(reservation) => Some(reservation),
            Err(has_reservations) => (has_reservations && self.take_lapsed(now)).then(|| self.reserve()),
        }
    }

    /// Reserves a permit that was acquired.
    pub(crate) fn reserve(&self) -> Reservation {
        drive(&self.word, |word| {
            let (word, reservation) = PermitsWord::unpack(word).reserve();
            Step::Write(word.pack(), reservation)
        })
    }

    /// Turns a reservation into a permit in use, unless it has lapsed.
    #[inline]
    pub(crate) fn claim(&self, reservation: Reservation) -> bool {
        drive(&self.word, |word| match PermitsWord::unpack(word).claim(reservation) {
            Some(_) if reservation.epoch == UNCOUNTED => Step::Keep(true),
            Some(claimed) => Step::Write(claimed.pack(), true),
            None => Step::Keep(false),
        })
    }

    /// Makes a reservation fresh again, for an owner that still wants it. `None` if it has lapsed.
    /// One load if it is fresh.
    #[inline]
    pub(crate) fn renew(&self, reservation: Reservation) -> Option<Reservation> {
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            match word.claim(reservation) {
                Some(_) if reservation.epoch == UNCOUNTED || reservation.epoch == word.epoch => {
                    Step::Keep(Some(reservation))
                }
                Some(claimed) => {
                    let (word, renewed) = claimed.reserve();
                    Step::Write(word.pack(), Some(renewed))
                }
                None => Step::Keep(None),
            }
        })
    }

    /// Releases a reserved permit, unless its reservation has lapsed.
    pub(crate) fn release_reservation(&self, reservation: Reservation) -> Result<(), HasWaiters> {
        if self.claim(reservation) { self.release() } else { Ok(()) }
    }

    /// Takes the permit of a reservation that has lapsed, for a caller that found no free permit.
    /// If none has, the reservations begin to lapse.
    #[cold]
    pub(crate) fn take_lapsed(&self, now: impl FnOnce() -> Nanos) -> bool {
        let mut seen = self.word.load(Ordering::Acquire);
        if !PermitsWord::unpack(seen).has_reservations() {
            return false;
        }
        let now = now();
        loop {
            let word = PermitsWord::unpack(seen);
            if !word.has_reservations() {
                return false;
            }
            // After the word: whoever began the epoch of the word wrote its time first.
            let began = self.epoch_began.load(Ordering::Acquire);
            let is_over = now >= Nanos::new(began).saturating_add(LAPSE_AFTER);
            if !is_over || word.old == 0 {
                // A clock that goes backwards begins another epoch, or the reservations would not
                // lapse until it has caught up.
                if is_over || now.get() < began {
                    self.begin_epoch(began, now);
                }
                return false;
            }
            let old = word.old - 1;
            // Above a lowered limit, the permit is released instead.
            let released = word.in_flight > self.limit();
            let next = PermitsWord { old, in_flight: word.in_flight - u32::from(released), ..word };
            match self.word.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if released => seen = next.pack(),
                Ok(_) => {
                    self.grants_lapse.store(1, Ordering::Relaxed);
                    return true;
                }
                Err(actual) => seen = actual,
            }
        }
    }

    /// Makes all fresh reservations old.
    fn begin_epoch(&self, began: u64, now: Nanos) {
        if self.epoch_began.compare_exchange(began, now.get(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            return; // another caller begins it
        }
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.old > 0 || word.fresh == 0 {
                return Step::Keep(());
            }
            let epoch = word.epoch.wrapping_add(1) & EPOCH_MASK;
            Step::Write(PermitsWord { epoch, old: word.fresh, fresh: 0, ..word }.pack(), ())
        });
    }

    /// Releases a permit. If there are waiters, it only reports them: the queue decides, under its
    /// lock.
    #[inline]
    pub(crate) fn release(&self) -> Result<(), HasWaiters> {
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiters {
                return Step::Keep(Err(HasWaiters));
            }
            debug_assert!(word.in_flight > 0, "a permit was released twice");
            Step::Write(word.with_in_flight(word.in_flight.saturating_sub(1)).pack(), Ok(()))
        })
    }

    /// For the queue, under its lock: acquires a permit (`true`), or announces a waiter if it may
    /// join.
    ///
    /// Both are one step, so a concurrent release is either seen here or sees the waiter.
    pub(crate) fn acquire_or_enqueue(&self, may_join: bool) -> Result<bool, QueueFull> {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.is_free(limit) {
                Step::Write(word.with_in_flight(word.in_flight + 1).pack(), Ok(true))
            } else if !may_join {
                Step::Keep(Err(QueueFull))
            } else if word.waiters {
                // The mark does not change while the lock is held.
                Step::Keep(Ok(false))
            } else {
                Step::Write(PermitsWord { waiters: true, ..word }.pack(), Ok(false))
            }
        })
    }

    /// For the queue, under its lock: the last waiter has left without a grant.
    pub(crate) fn last_waiter_left(&self) {
        drive(&self.word, |word| Step::Write(PermitsWord { waiters: false, ..PermitsWord::unpack(word) }.pack(), ()));
    }

    /// For the queue, under its lock, with waiters and a permit: grants it to the first waiter, or
    /// releases it because the limit was lowered.
    pub(crate) fn hand_off_or_release(&self, grant: Grant, is_last: bool) -> Option<Reservation> {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.in_flight <= limit {
                let (word, reservation) = word.grant(grant, is_last);
                Step::Write(word.pack(), Some(reservation))
            } else {
                Step::Write(word.with_in_flight(word.in_flight - 1).pack(), None)
            }
        })
    }

    /// For the queue, under its lock, with waiters: acquires a permit for the first one, after the
    /// limit was raised.
    pub(crate) fn admit_waiter(&self, grant: Grant, is_last: bool) -> Option<Reservation> {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.in_flight < limit {
                let (word, reservation) = word.with_in_flight(word.in_flight + 1).grant(grant, is_last);
                Step::Write(word.pack(), Some(reservation))
            } else {
                Step::Keep(None)
            }
        })
    }

    /// How to grant a permit to a waiter that has not lost one before. While waiters let their
    /// grants lapse, a queue full of them must not hold up other callers once per waiter.
    pub(crate) fn grant_to_new(&self) -> Grant {
        if self.grants_lapse.load(Ordering::Relaxed) == 0 { Grant::Exclusive } else { Grant::Open }
    }

    /// A waiter has claimed its grant.
    pub(crate) fn grant_was_claimed(&self) {
        if self.grants_lapse.load(Ordering::Relaxed) != 0 {
            self.grants_lapse.store(0, Ordering::Relaxed);
        }
    }
}

/// All permits are in flight and all queue slots taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

#[cfg(all(test, not(rampart_loom)))]
mod tests;
