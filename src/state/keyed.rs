//! One limiter per key, in a table of fixed size.

use std::time::Duration;

use super::{
    atomics::{AtomicU64, Ordering},
    drive::{Step, drive},
    gcra::GcraRejection,
    time::{CompactDuration, Nanos, nanos_of},
};

/// Limiters for any number of keys, in memory of fixed size.
///
/// ```text
/// entry: [fingerprint: 16 | theoretical arrival time (TAT): 48]
/// ```
///
/// A key's hash selects a set of eight entries, which fill a cache line, and a fingerprint. An
/// entry whose TAT has passed is a full bucket, no different from an absent one. Only such an idle
/// entry is ever replaced, so eviction loses nothing. A key without an entry in a set whose entries
/// are all active is limited by the set's overflow limiter, which such keys share.
///
/// Invariants:
/// - keyed.I1 memory is constant: 72 bytes per set.
/// - keyed.I2 an active entry is written by its own key only: an entry is replaced by a swap of its
///   idle word.
/// - keyed.I3 a lookup is at most eight loads.
/// - keyed.I4 two keys in a set with the same fingerprint (one in 65,535) share a limiter:
///   stricter, never looser.
/// - keyed.I5 a rejection writes nothing.
/// - keyed.I6 a set has at most one entry of a key, unless tokens are refunded (below).
///
/// keyed.I6 is not obvious, since two callers may insert a new key concurrently, with different
/// times. It holds because the TAT of a way only grows, and because a new key goes to the way with
/// the least TAT, the first of several. Suppose that one caller inserts the key in way p over the
/// TAT P, and another in way q over Q, and neither has seen the other's entry. Each saw in the
/// other way a TAT no later than the one replaced there, so P <= Q and Q <= P; and if they are
/// equal both take the first way.
///
/// A refund lowers a TAT. If one comes between the loads of one inserting caller and the insertion
/// of another, in the same set, the key may have two entries until one is idle: the one that is
/// found first counts, and the call that inserted the other is forgotten.
///
/// Time is counted in fractions of a token's period, rounded down: 64ths, and down to eighths at
/// the highest rates. So a token may come early by one fraction. (Rounding up when tokens are taken
/// would reject the second call of a burst.) The horizon is 9.1 years or more; there the time
/// saturates.
///
/// Cost: up to 8 loads, and 1 RMW when admitted; the overflow limiter is 1 load more.
#[derive(Debug)]
pub(crate) struct Keyed {
    sets: Box<[Set]>,
    overflow: Box<[AtomicU64]>,
    /// The units of time in a token's period.
    units: u64,
    period_nanos: u64,
    count: u64,
    burst: u32,
    share_overflow: bool,
}

#[derive(Debug)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// The entries of a set. Few ways make small models.
const WAYS: usize = if cfg!(rampart_loom) { 2 } else { 8 };
/// The size of a set: its entries, and its overflow limiter.
const BYTES_PER_SET: usize = 72;

const TAT_BITS: u32 = 48;
const TAT_MAX: u64 = (1 << TAT_BITS) - 1;

/// The shortest unit, in nanoseconds: with it, 48 bits reach nine years.
const MIN_UNIT: u64 = 1 << 10;

/// The tokens taken for a call of one key, which can be [refunded](Keyed::refund).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyedTokens {
    cost: u32,
    /// The TAT after them: when they have refilled.
    until: u64,
    overflow: bool,
}

/// The decision on a call of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyedDecision {
    pub(crate) result: Result<(), GcraRejection>,
    /// Whether the key had no entry: the overflow limiter decided, or the call was rejected.
    pub(crate) overflow: bool,
}

impl Keyed {
    /// The shortest period of a token: eight units.
    pub(crate) const MIN_PERIOD: Duration = Duration::from_nanos(8 * MIN_UNIT);

    /// `count` tokens per `per` and key, at most one each `MIN_PERIOD`, and entries for at least
    /// `max_keys` keys. The number of sets is rounded up to a power of two.
    pub(crate) fn new(count: u32, per: Duration, burst: u32, max_keys: usize, share_overflow: bool) -> Self {
        // Twice the entries, because sets fill unevenly.
        let sets = (max_keys.div_ceil(WAYS).saturating_mul(2)).next_power_of_two();
        let (count, period_nanos) = (u64::from(count), nanos_of(per));
        let fits = period_nanos / count / MIN_UNIT;
        Self {
            sets: (0..sets).map(|_| Set(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            overflow: (0..sets).map(|_| AtomicU64::new(0)).collect(),
            units: if fits < 8 { 8 } else { 1 << fits.ilog2().min(6) },
            period_nanos,
            count,
            burst,
            share_overflow,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sets.len() * BYTES_PER_SET
    }

    pub(crate) fn burst(&self) -> u32 {
        self.burst
    }

    /// The entries that are active now. Reads the whole table.
    pub(crate) fn active(&self, now: Nanos) -> usize {
        let now = self.time(now);
        let active = |entry: &AtomicU64| entry.load(Ordering::Relaxed) & TAT_MAX > now;
        self.sets.iter().map(|set| set.0.iter().filter(|entry| active(entry)).count()).sum()
    }

    fn time(&self, now: Nanos) -> u64 {
        let units = u128::from(now.get()) * u128::from(self.units * self.count) / u128::from(self.period_nanos);
        u64::try_from(units).unwrap_or(u64::MAX).min(TAT_MAX)
    }

    fn rejected(&self, wait: u64) -> Result<(), GcraRejection> {
        let nanos = (u128::from(wait) * u128::from(self.period_nanos)).div_ceil(u128::from(self.units * self.count));
        Err(GcraRejection::Wait(CompactDuration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    /// The pure step: the next TAT, or the wait until it is possible.
    fn advance(&self, tat: u64, now: u64, cost: u32) -> Result<u64, u64> {
        let next = tat.max(now).saturating_add(self.units * u64::from(cost)).min(TAT_MAX);
        let wait = next.saturating_sub(self.units * u64::from(self.burst)).saturating_sub(now);
        if wait == 0 { Ok(next) } else { Err(wait) }
    }

    /// Takes `cost` tokens of the key with this hash; with `peek`, only checks.
    pub(crate) fn check(&self, hash: u64, now: Nanos, cost: u32, peek: bool) -> KeyedDecision {
        self.check_refundable(hash, now, cost, peek).0
    }

    /// As [`check`](Self::check), also with the tokens, if the result is `Ok`.
    pub(crate) fn check_refundable(
        &self,
        hash: u64,
        now: Nanos,
        cost: u32,
        peek: bool,
    ) -> (KeyedDecision, KeyedTokens) {
        let decided =
            |result, overflow, until| (KeyedDecision { result, overflow }, KeyedTokens { cost, until, overflow });
        if cost == 0 {
            return decided(Ok(()), false, 0);
        }
        if cost > self.burst {
            return decided(Err(GcraRejection::Never), false, 0);
        }
        let now = self.time(now);
        let (index, fingerprint) = self.place(hash);
        loop {
            let (entry, seen, overflow) = match self.find(index, fingerprint, now) {
                Ok((way, seen)) => (&self.sets[index].0[way], seen, false),
                Err(until) if !self.share_overflow => {
                    return decided(self.rejected(until - now), true, 0);
                }
                Err(_) => (&self.overflow[index], self.overflow[index].load(Ordering::Acquire), true),
            };
            // An idle entry of another key counts from now, as an idle one of this key would.
            let next = match self.advance(seen & TAT_MAX, now, cost) {
                Ok(next) => next,
                Err(wait) => return decided(self.rejected(wait), overflow, 0),
            };
            if peek {
                return decided(Ok(()), overflow, next);
            }
            let word = fingerprint << TAT_BITS | next;
            if entry.compare_exchange_weak(seen, word, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return decided(Ok(()), overflow, next);
            }
        }
    }

    /// Refunds the tokens of a call that was not made after all. Meant for immediately after they
    /// were taken: tokens that have refilled by now are not refunded.
    pub(crate) fn refund(&self, hash: u64, tokens: KeyedTokens, now: Nanos) {
        if tokens.until <= self.time(now) {
            return;
        }
        let (index, fingerprint) = self.place(hash);
        let set = &self.sets[index].0;
        let entry = if tokens.overflow {
            Some(&self.overflow[index])
        } else {
            // It is active, so it was not replaced.
            set.iter().find(|entry| entry.load(Ordering::Acquire) >> TAT_BITS == fingerprint)
        };
        let Some(entry) = entry else { return };
        drive(entry, |word| {
            if !tokens.overflow && word >> TAT_BITS != fingerprint {
                return Step::Keep(());
            }
            let tat = (word & TAT_MAX).saturating_sub(self.units * u64::from(tokens.cost));
            Step::Write(word & !TAT_MAX | tat, ())
        });
    }

    /// The index of a key's set, and its fingerprint.
    fn place(&self, hash: u64) -> (usize, u64) {
        // Zero is the fingerprint of an empty entry.
        ((hash >> 16) as usize & (self.sets.len() - 1), (hash & 0xFFFF).max(1))
    }

    /// Returns the way and word of the key's entry, or of an idle one to replace; otherwise the
    /// time at which the first becomes idle.
    fn find(&self, index: usize, fingerprint: u64, now: u64) -> Result<(usize, u64), u64> {
        let (mut way, mut least) = (0, 0);
        for (at, entry) in self.sets[index].0.iter().enumerate() {
            let word = entry.load(Ordering::Acquire);
            if word >> TAT_BITS == fingerprint {
                return Ok((at, word));
            }
            if at == 0 || word & TAT_MAX < least & TAT_MAX {
                (way, least) = (at, word);
            }
        }
        let until = least & TAT_MAX;
        if until <= now { Ok((way, least)) } else { Err(until) }
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::atomics::count;

    fn hash(key: u64) -> u64 {
        // splitmix64
        let mut z = key.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn allowed(keyed: &Keyed, key: u64, now: Nanos) -> bool {
        keyed.check(hash(key), now, 1, false).result.is_ok()
    }

    fn at(millis: u64) -> Nanos {
        Nanos::new(1 << 50).saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn the_cost_contract_holds() {
        let keyed = Keyed::new(1, Duration::from_secs(1), 2, 64, true);
        let check = || count(|| keyed.check(hash(7), at(0), 1, false).result);
        let (result, ops) = check();
        assert_eq!((result, ops.rmws, ops.loads), (Ok(()), 1, 8), "a new key");
        let (result, ops) = check();
        assert_eq!((result, ops.rmws, ops.loads), (Ok(()), 1, 1), "a known key");
        let (result, ops) = check();
        assert_eq!(result, Err(GcraRejection::Wait(Duration::from_secs(1).into())));
        assert_eq!((ops.rmws, ops.stores, ops.loads), (0, 0, 1), "keyed.I5");
    }

    #[test]
    fn refunded_tokens_are_available_again_unless_they_have_refilled() {
        // Entries for sixteen keys, so others share the overflow limiters. No fingerprints collide.
        let keyed = Keyed::new(1, Duration::from_secs(1), 3, 1, true);
        let take = |key, now, cost| {
            let (decision, tokens) = keyed.check_refundable(hash(key), now, cost, false);
            decision.result.map(|()| (tokens, decision.overflow))
        };
        let mut overflowed = 0;
        for key in 0..30 {
            let (tokens, overflow) = take(key, at(0), 3).unwrap();
            overflowed += u32::from(overflow);
            assert!(take(key, at(0), 1).is_err());
            keyed.refund(hash(key), tokens, at(0));
            let (tokens, _) = take(key, at(0), 3).expect("all tokens are back");
            if overflow {
                keyed.refund(hash(key), tokens, at(0));
            }
        }
        assert!(overflowed >= 14);
        let keyed = Keyed::new(1, Duration::from_secs(1), 3, 64, true);
        let (_, early) = keyed.check_refundable(hash(7), at(0), 1, false);
        assert_eq!(keyed.check(hash(7), at(5000), 3, false).result, Ok(()));
        keyed.refund(hash(7), early, at(5000));
        assert!(keyed.check(hash(7), at(5000), 1, false).result.is_err(), "the first token had refilled");
        keyed.refund(hash(8), early, at(0));
        assert_eq!(keyed.check(hash(8), at(0), 3, false).result, Ok(()), "a key without an entry is unaffected");
        assert!(keyed.check(hash(8), at(0), 1, false).result.is_err());
    }

    #[test]
    fn a_key_without_an_entry_learns_when_one_becomes_idle() {
        let keyed = Keyed::new(1, Duration::from_secs(1), 3, 1, false);
        for key in 0..1000 {
            let decision = keyed.check(hash(key), at(0), 1 + key as u32 % 3, false);
            if decision.overflow {
                // The entries of its set become idle in one, two or three seconds.
                let Err(GcraRejection::Wait(wait)) = decision.result else { panic!("{decision:?}") };
                assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(3), "{wait:?}");
                assert_eq!(keyed.check(hash(key), at(wait.get().as_millis() as u64), 1, false).result, Ok(()));
                return;
            }
        }
        panic!("a thousand keys in two sets");
    }

    #[test]
    fn the_highest_rates_hold_with_coarser_units() {
        for (per_second, units) in [(1, 64), (10_000, 64), (50_000, 16), (100_000, 8)] {
            let keyed = Keyed::new(per_second, Duration::from_secs(1), 100, 8, true);
            assert_eq!(keyed.units, units);
            assert!(Keyed::MIN_PERIOD <= Duration::from_secs(1) / per_second);
            let micro = |micros| Nanos::new(1 << 50).saturating_add(Duration::from_micros(micros));
            let admitted = (0..10_000).filter(|micros| allowed(&keyed, 1, micro(*micros))).count();
            let due = 100 + per_second as usize / 100;
            assert!(admitted == due || admitted + 1 == due, "{admitted} of {due} at {per_second}/s");
            // Nine years.
            assert!(keyed.time(Nanos::new(1 << 58)) < TAT_MAX);
        }
    }

    // contract L10
    #[test]
    fn every_call_is_admitted_past_the_horizon() {
        let keyed = Keyed::new(1, Duration::from_millis(1), 1, 1, true);
        assert!((0..100).all(|key| allowed(&keyed, key, Nanos::MAX) && allowed(&keyed, key, Nanos::MAX)));
        let _ = allowed(&keyed, 7, Nanos::new(0));
    }

    // contract L25. The behaviour test floods the limiter with ten million keys; this one checks
    // the table.
    #[test]
    fn a_flood_of_keys_neither_evicts_nor_resets_a_limited_key() {
        let keyed = Keyed::new(5, Duration::from_secs(900), 5, 1000, true);
        let bytes = keyed.bytes();
        for victim in 0..50 {
            assert!((0..5).all(|_| allowed(&keyed, victim, at(0))));
        }
        for flood in 0..100_000 {
            allowed(&keyed, 1_000_000 + flood, at(flood / 1000));
            if flood % 1000 == 0 {
                assert!((0..50).all(|victim| !allowed(&keyed, victim, at(flood / 1000))), "reset after {flood}");
            }
        }
        assert_eq!(keyed.bytes(), bytes);
        assert!((0..50).all(|victim| allowed(&keyed, victim, at(900_000))), "each is admitted again in time");
    }

    #[test]
    fn concurrent_inserts_of_a_key_make_one_limiter() {
        for round in 0..300 {
            // Two sets whose entries become idle in a moment: for some threads they are idle, for
            // others still active.
            let keyed = Keyed::new(1, Duration::from_secs(1), 3, 8, true);
            (0..6).for_each(|other| assert!(allowed(&keyed, 1000 + other, at(0))));
            let admitted: usize = std::thread::scope(|scope| {
                let keyed = &keyed;
                let take =
                    |thread: u64| (0..4).filter(|turn| allowed(keyed, round, at(999 + (thread + turn) % 2))).count();
                let threads: Vec<_> = (0..3).map(|thread| scope.spawn(move || take(thread))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert!(admitted == 3, "{admitted} in round {round}");
        }
    }

    proptest! {
        /// contract L24: keys are independent, and each is a token bucket, while there are entries
        /// for all.
        #[test]
        fn keyed_limiter_matches_a_map_of_token_buckets(
            burst in 1_u32..5,
            ops in prop::collection::vec((0_u64..6, 0_u64..3, 1_u32..4), 1..200),
        ) {
            // One token per millisecond.
            let keyed = Keyed::new(1000, Duration::from_secs(1), burst, 1000, true);
            let mut levels: HashMap<u64, (u64, u64)> = HashMap::new();
            let mut now = 0;
            for (key, step, cost) in ops {
                now += step;
                let (level, since) = levels.entry(key).or_insert((u64::from(burst), now));
                *level = (*level + now - *since).min(burst.into());
                *since = now;
                let expected = if cost > burst {
                    Err(GcraRejection::Never)
                } else if u64::from(cost) <= *level {
                    *level -= u64::from(cost);
                    Ok(())
                } else {
                    Err(GcraRejection::Wait(Duration::from_millis(u64::from(cost) - *level).into()))
                };
                let decision = keyed.check(hash(key), at(now), cost, false);
                prop_assert_eq!(decision, KeyedDecision { result: expected, overflow: false });
            }
        }
    }
}
