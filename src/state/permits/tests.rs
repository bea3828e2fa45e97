use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::state::atomics::{Ops, count};

fn never() -> Nanos {
    panic!("the clock is read")
}

fn at(millis: u64) -> impl Fn() -> Nanos + Copy {
    move || Nanos::new(millis * 1_000_000)
}

#[test]
fn the_cost_contract_holds() {
    let permits = Permits::new(1);
    assert_eq!(count(|| permits.try_acquire(never)), (true, Ops { loads: 2, stores: 0, rmws: 1 }));
    assert_eq!(count(|| permits.try_acquire(never)), (false, Ops { loads: 2, stores: 0, rmws: 0 }));
    assert_eq!(count(|| permits.release()), (Ok(()), Ops { loads: 1, stores: 0, rmws: 1 }));
    let (reserved, ops) = count(|| permits.try_reserve(never).unwrap());
    assert_eq!(ops, Ops { loads: 2, stores: 0, rmws: 1 });
    assert_eq!(count(|| permits.renew(reserved)), (Some(reserved), Ops { loads: 1, stores: 0, rmws: 0 }));
    assert_eq!(count(|| permits.claim(reserved)), (true, Ops { loads: 1, stores: 0, rmws: 1 }));
}

#[test]
fn a_rejection_while_permits_are_reserved_costs_little_more() {
    let permits = Permits::new(1);
    permits.try_reserve(never).unwrap();
    let reject = |millis| count(|| permits.try_acquire(at(millis)));
    assert_eq!(reject(100), (false, Ops { loads: 5, stores: 0, rmws: 2 }), "it begins an epoch");
    assert_eq!(reject(104), (false, Ops { loads: 4, stores: 0, rmws: 0 }));
    assert!(reject(105).0, "the reservation has lapsed");
}

#[test]
fn a_clock_that_goes_back_delays_the_lapse_by_one_epoch() {
    let permits = Permits::new(1);
    permits.try_reserve(never).unwrap();
    assert!(!permits.try_acquire(at(3_600_000)));
    assert!(!permits.try_acquire(at(1_000)));
    assert!(!permits.try_acquire(at(1_004)));
    assert!(permits.try_acquire(at(1_005)));
}

#[test]
fn more_reservations_than_a_pool_counts_are_kept_until_they_are_released() {
    let permits = Permits::new(u32::MAX);
    assert_eq!(permits.limit(), MAX_LIMIT);
    let reserved: Vec<_> = (0..POOL_MAX + 10).map(|_| permits.try_reserve(never).unwrap()).collect();
    assert_eq!(permits.counts().0, POOL_MAX + 10);
    assert!(reserved.into_iter().all(|reserved| permits.release_reservation(reserved).is_ok()));
    assert_eq!(permits.counts(), (0, 0));
}

#[derive(Clone, Debug)]
enum Op {
    TryAcquire,
    TryReserve,
    Claim(usize),
    Renew(usize),
    ReleaseReservation(usize),
    Release,
    Enqueue,
    Admit,
    CancelWaiters,
    Resize(u32),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::TryAcquire),
        5 => Just(Op::TryReserve),
        2 => any::<usize>().prop_map(Op::Claim),
        1 => any::<usize>().prop_map(Op::Renew),
        2 => any::<usize>().prop_map(Op::ReleaseReservation),
        4 => Just(Op::Release),
        2 => Just(Op::Enqueue),
        1 => Just(Op::Admit),
        1 => Just(Op::CancelWaiters),
        1 => (1_u32..6).prop_map(Op::Resize),
        4 => (0_u64..8).prop_map(Op::Advance),
    ]
}

/// Permits in use, and owners of reservations with the time at which they made or renewed them.
#[derive(Default)]
struct Model {
    in_use: u32,
    owners: Vec<(Reservation, u64)>,
    waiters: bool,
    now: u64,
}

impl Model {
    /// The most reservations that can have lapsed, by their age.
    fn may_have_lapsed(&self) -> usize {
        let age = LAPSE_AFTER.as_millis() as u64;
        self.owners.iter().filter(|(_, made)| self.now >= made + age).count()
    }
}

proptest! {
    // permits.I1 to I6
    #[test]
    fn each_reservation_is_used_once_and_kept_while_it_is_young(ops in prop::collection::vec(op(), 0..300)) {
        let (permits, mut limit) = (Permits::new(2), 2);
        let mut model = Model { now: 1_000, ..Model::default() };
        // Owners whose reservations were taken, of whom it is not known which.
        let taken = Cell::new(0_usize);
        for op in ops {
            let before = permits.counts().0;
            let free = !model.waiters && before < limit;
            let time = model.now;
            let now = at(time);
            match op {
                Op::TryAcquire | Op::TryReserve => {
                    let reserving = matches!(op, Op::TryReserve);
                    let reserved = if reserving { permits.try_reserve(now) } else { None };
                    let acquired = if reserving { reserved.is_some() } else { permits.try_acquire(now) };
                    prop_assert!(acquired || !free);
                    if acquired && !free {
                        prop_assert!(permits.counts().0 <= limit);
                        taken.set(taken.get() + 1);
                    }
                    // Above a lowered limit, lapsed permits are released instead.
                    let in_flight = before + u32::from(acquired && free);
                    taken.set(taken.get() + (in_flight - permits.counts().0) as usize);
                    prop_assert!(taken.get() <= model.may_have_lapsed(), "a young reservation was taken");
                    match reserved {
                        Some(reserved) => model.owners.push((reserved, model.now)),
                        None => model.in_use += u32::from(acquired),
                    }
                }
                Op::Claim(which) | Op::Renew(which) | Op::ReleaseReservation(which) if !model.owners.is_empty() => {
                    let index = which % model.owners.len();
                    let (reserved, made) = model.owners.swap_remove(index);
                    let kept = match op {
                        Op::Claim(_) => permits.claim(reserved),
                        Op::Renew(_) => match permits.renew(reserved) {
                            Some(renewed) => { model.owners.push((renewed, model.now)); true }
                            None => false,
                        },
                        _ => {
                            let released = permits.release_reservation(reserved);
                            let kept = released.is_err() || permits.counts().0 < before;
                            prop_assert!(released.is_ok() || model.waiters);
                            // The queue would grant it.
                            model.in_use += u32::from(released.is_err());
                            kept
                        }
                    };
                    if matches!(op, Op::Claim(_)) && kept {
                        model.in_use += 1;
                    }
                    if !kept {
                        prop_assert!(model.now >= made + LAPSE_AFTER.as_millis() as u64, "a young one lapsed");
                        prop_assert!(taken.get() > 0);
                        taken.set(taken.get() - 1);
                    }
                }
                Op::Claim(_) | Op::Renew(_) | Op::ReleaseReservation(_) => {}
                Op::Release if model.in_use > 0 => match permits.release() {
                    Ok(()) => { prop_assert!(!model.waiters); model.in_use -= 1; }
                    Err(HasWaiters) => {
                        prop_assert!(model.waiters);
                        let grant = permits.grant_to_new();
                        match permits.hand_off_or_release(grant, true) {
                            Some(reserved) => {
                                prop_assert!(before <= limit);
                                model.waiters = false;
                                // An open grant may be taken immediately.
                                let made = if grant == Grant::Open { 0 } else { model.now };
                                model.owners.push((reserved, made));
                            }
                            None => prop_assert!(before > limit),
                        }
                        model.in_use -= 1;
                    }
                },
                Op::Release => {}
                Op::Enqueue => match permits.acquire_or_enqueue(true) {
                    Ok(true) => { prop_assert!(free); model.in_use += 1; }
                    Ok(false) => { prop_assert!(!free); model.waiters = true; }
                    Err(QueueFull) => prop_assert!(false),
                },
                Op::Admit if model.waiters => {
                    let reserved = permits.admit_waiter(Grant::Exclusive, true);
                    prop_assert_eq!(reserved.is_some(), before < limit);
                    if let Some(reserved) = reserved {
                        model.waiters = false;
                        model.owners.push((reserved, model.now));
                    }
                }
                Op::Admit => {}
                Op::CancelWaiters => { permits.last_waiter_left(); model.waiters = false; }
                Op::Resize(to) => { limit = to; permits.set_limit(to); }
                Op::Advance(by) => model.now += by,
            }
            prop_assert!(permits.counts().0 <= before.max(limit));
            let reserved = model.owners.len() - taken.get();
            prop_assert_eq!(permits.counts().1 as usize, reserved);
            prop_assert_eq!(permits.counts().0, model.in_use + reserved as u32);
        }
        // A caller that keeps asking gets all that are not used.
        permits.last_waiter_left();
        model.now += 1_000;
        for _ in 0..3 {
            model.now += LAPSE_AFTER.as_millis() as u64;
            while permits.try_acquire(at(model.now)) {
                model.in_use += 1;
                prop_assert!(permits.counts().0 <= limit.max(model.in_use));
            }
        }
        prop_assert_eq!(permits.counts().1, 0);
    }
}
