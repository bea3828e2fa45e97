use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Wake,
};

use proptest::prelude::*;

use super::*;
use crate::state::atomics::{Ops, count};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NOW: Nanos = Nanos::new(1 << 50);

/// One token per second.
fn tokens(burst: u32) -> Tokens {
    let rate = Rate::per_second(1);
    Tokens::new(rate, Params::new(1, SECOND, burst).unwrap())
}

/// A call that waits, and its task.
struct Call {
    ticket: Ticket,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl Call {
    fn join(tokens: &Tokens, now: Nanos, cost: u32) -> Option<Self> {
        match tokens.join(now, cost, Duration::MAX).unwrap() {
            Joined::Admitted(_) => None,
            Joined::Waits(ticket) => Some(Self { ticket, woken: Arc::default() }),
        }
    }

    /// The wait until the next look, or `None` once admitted.
    fn poll(&self, tokens: &Tokens, now: Nanos) -> Option<Duration> {
        self.woken.0.store(false, SeqCst);
        match tokens.poll(&self.ticket, now, &Waker::from(Arc::clone(&self.woken))) {
            Turn::Taken { .. } => None,
            Turn::Wait(wait) => Some(wait),
            Turn::Never => panic!("the cost is above the burst"),
        }
    }
}

fn rejected(result: Result<(), GcraRejection>) -> Duration {
    match result {
        Err(GcraRejection::Wait(wait)) => wait.get(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rejection_behind_a_queue_writes_nothing() {
    let tokens = tokens(1);
    assert_eq!(count(|| tokens.check(NOW, 1)).1, Ops { loads: 2, stores: 0, rmws: 1 });
    let call = Call::join(&tokens, NOW, 1).unwrap();
    call.poll(&tokens, NOW);
    let (result, ops) = count(|| tokens.check(NOW, 1));
    assert_eq!((rejected(result), ops.rmws, ops.stores), (2 * SECOND, 0, 0));
    let (result, ops) = count(|| tokens.join(NOW, 1, SECOND).map(drop));
    assert_eq!((rejected(result), ops.rmws, ops.stores), (2 * SECOND, 0, 0));
    tokens.leave(&call.ticket);
    let (result, ops) = count(|| tokens.check(NOW.saturating_add(SECOND), 1));
    assert_eq!((result, ops), (Ok(()), Ops { loads: 2, stores: 0, rmws: 1 }), "no longer contended");
}

#[test]
fn calls_are_admitted_in_order_one_each_period() {
    let tokens = tokens(1);
    tokens.check(NOW, 1).unwrap();
    let calls: Vec<_> = (0..5).map(|_| Call::join(&tokens, NOW, 1).unwrap()).collect();
    for (index, call) in calls.iter().enumerate() {
        let due = NOW.saturating_add(SECOND * (index as u32 + 1));
        for later in &calls[index..] {
            let early = Nanos::new(due.get() - 1);
            assert!(later.poll(&tokens, early).is_some());
        }
        assert_eq!(call.poll(&tokens, Nanos::new(due.get() - 1)), Some(Duration::from_nanos(1)));
        assert_eq!(call.poll(&tokens, due), None);
        assert!(calls.get(index + 1).is_none_or(|next| next.woken.0.load(SeqCst)), "the next is called");
    }
    assert_eq!(rejected(tokens.check(NOW.saturating_add(5 * SECOND), 1)), SECOND);
}

#[test]
fn a_late_poll_keeps_the_pace_but_does_not_collect_a_burst() {
    let rate = Rate::per_second(1000);
    let tokens = Tokens::new(rate, Params::new(1000, SECOND, 1).unwrap());
    tokens.check(NOW, 1).unwrap();
    let mut calls: VecDeque<_> = (0..100).map(|_| Call::join(&tokens, NOW, 1).unwrap()).collect();
    let mut admit = |now| {
        let before = calls.len();
        while calls.front().is_some_and(|call| call.poll(&tokens, now).is_none()) {
            calls.pop_front();
        }
        before - calls.len()
    };
    assert_eq!(admit(NOW.saturating_add(5 * MS)), 5, "within the lateness nothing is lost");
    assert_eq!(admit(NOW.saturating_add(10 * MS)), 5);
    assert_eq!(admit(NOW.saturating_add(SECOND)), 11, "beyond it, time is lost");
}

// The second case, in the small: the debt of departed calls.
#[test]
fn a_crowd_that_leaves_leaves_no_debt() {
    type Order = fn(usize, usize) -> usize;
    let orders: [Order; 4] = [|_, _| 0, |left, _| left - 1, |left, _| left / 2, |left, turn| turn * 7919 % left];
    for order in orders {
        let tokens = tokens(1);
        tokens.check(NOW, 1).unwrap();
        let mut crowd: Vec<_> = (0..5000).map(|_| Call::join(&tokens, NOW, 1).unwrap()).collect();
        // One stays, at the end.
        let stays = Call::join(&tokens, NOW, 1).unwrap();
        stays.poll(&tokens, NOW);
        for turn in 0..5000 {
            let leaves = crowd.swap_remove(order(crowd.len(), turn));
            tokens.leave(&leaves.ticket);
        }
        assert!(stays.woken.0.load(SeqCst), "its turn has come");
        assert_eq!(stays.poll(&tokens, NOW), Some(SECOND));
        assert_eq!(rejected(tokens.check(NOW, 1)), 2 * SECOND);
        tokens.leave(&stays.ticket);
        assert_eq!(rejected(tokens.check(NOW, 1)), SECOND);
    }
}

#[test]
fn idle_calls_delay_a_lone_one_by_a_fraction_of_a_second() {
    for idle in [1, 100, 5000] {
        let tokens = tokens(1);
        tokens.check(NOW, 1).unwrap();
        let crowd: Vec<_> = (0..idle).map(|_| Call::join(&tokens, NOW, 1).unwrap()).collect();
        for call in &crowd {
            call.poll(&tokens, NOW);
        }
        let lone = Call::join(&tokens, NOW, 1).unwrap();
        let mut now = NOW;
        while let Some(wait) = lone.poll(&tokens, now) {
            now = now.saturating_add(wait);
        }
        let waited = now.saturating_since(NOW);
        assert!(waited <= SECOND + 200 * MS, "{waited:?} behind {idle}");
        // The calls that were passed over have kept their places.
        assert!(crowd[0].poll(&tokens, now.saturating_add(SECOND)).is_none());
    }
}

#[test]
fn idle_calls_do_not_starve_calls_outside_of_the_queue() {
    let tokens = tokens(1);
    tokens.check(NOW, 1).unwrap();
    let crowd: Vec<_> = (0..5000).map(|_| Call::join(&tokens, NOW, 1).unwrap()).collect();
    for call in &crowd {
        call.poll(&tokens, NOW);
    }
    let mut now = NOW.saturating_add(SECOND);
    while let Err(GcraRejection::Wait(_)) = tokens.check(now, 1) {
        now = now.saturating_add(MS);
    }
    assert!(now.saturating_since(NOW) <= SECOND + 200 * MS, "{:?}", now.saturating_since(NOW));
}

#[test]
fn a_returned_token_wakes_the_first_call() {
    let tokens = tokens(2);
    let (first, second) = (tokens.take(NOW, 1).unwrap(), tokens.take(NOW, 1).unwrap());
    let calls = [Call::join(&tokens, NOW, 1).unwrap(), Call::join(&tokens, NOW, 1).unwrap()];
    for call in &calls {
        call.poll(&tokens, NOW);
    }
    // Out of order.
    tokens.cancel(first);
    assert!(calls[0].woken.0.load(SeqCst));
    assert_eq!(calls[0].poll(&tokens, NOW), None);
    tokens.cancel(second);
    assert_eq!(calls[1].poll(&tokens, NOW), None);
    assert_eq!(tokens.snapshot(NOW).2, 0);
}

#[test]
fn a_change_of_the_rate_moves_the_calls_in_the_queue() {
    let tokens = tokens(1);
    tokens.check(NOW, 1).unwrap();
    let call = Call::join(&tokens, NOW, 1).unwrap();
    assert_eq!(call.poll(&tokens, NOW), Some(SECOND));
    let faster = Rate::per_second(10);
    tokens.set(faster, Params::new(10, SECOND, 1).unwrap(), NOW);
    assert!(call.woken.0.load(SeqCst));
    assert_eq!(call.poll(&tokens, NOW), Some(100 * MS));
    assert_eq!(tokens.snapshot(NOW).0, faster);
}

/// The naive limiter: a bucket whose level is a number, and a list of calls.
struct Model {
    burst: u64,
    /// Thousandths of a token.
    debt: u64,
    queue: VecDeque<(usize, u64)>,
}

impl Model {
    fn due(&self, cost: u64) -> Duration {
        Duration::from_millis((self.debt + 1000 * cost).saturating_sub(1000 * self.burst))
    }
}

proptest! {
    /// Calls that wait, leave and are admitted, against a naive queue. Every call looks again when
    /// it is woken or its timer fires, so each is admitted exactly when it is due.
    #[test]
    fn a_queue_of_live_calls_matches_a_naive_one(
        burst in 1_u32..4,
        ops in prop::collection::vec((0_u8..8, 0_u64..3000, 1_u32..4, any::<usize>()), 1..150),
    ) {
        let tokens = tokens(burst);
        let mut model = Model { burst: burst.into(), debt: 0, queue: VecDeque::new() };
        let mut calls: Vec<(usize, Call, Nanos)> = Vec::new();
        let (mut now, mut names) = (NOW, 0);
        for (op, step, cost, which) in ops {
            let cost = cost.min(burst);
            match op {
                0..3 => {
                    let until = now.saturating_add(Duration::from_millis(step));
                    // Both wake the calls that are due, in the order of their times.
                    loop {
                        let next = calls.iter().map(|(.., at)| *at).min();
                        let Some(at) = next.filter(|at| *at <= until) else { break };
                        let passed = at.saturating_since(now).as_millis() as u64;
                        (now, model.debt) = (at.max(now), model.debt.saturating_sub(passed));
                        let (name, call, look) = calls.iter_mut().find(|(.., look)| *look == at).unwrap();
                        let name = *name;
                        match call.poll(&tokens, now) {
                            Some(wait) => *look = now.saturating_add(wait),
                            None => {
                                let (front, cost) = model.queue.pop_front().unwrap();
                                prop_assert_eq!((front, model.due(cost)), (name, Duration::ZERO));
                                model.debt += 1000 * cost;
                                calls.retain(|(other, ..)| *other != name);
                                for (_, call, look) in &mut calls {
                                    if call.woken.0.load(SeqCst) {
                                        *look = now;
                                    }
                                }
                            }
                        }
                    }
                    let passed = until.saturating_since(now).as_millis() as u64;
                    (now, model.debt) = (until, model.debt.saturating_sub(passed));
                    if let Some((_, cost)) = model.queue.front() {
                        prop_assert!(model.due(*cost) > Duration::ZERO, "the first call was due");
                    }
                }
                3 if !calls.is_empty() => {
                    let (name, call, _) = calls.remove(which % calls.len());
                    tokens.leave(&call.ticket);
                    model.queue.retain(|(other, _)| *other != name);
                    for (_, call, look) in &mut calls {
                        if call.woken.0.load(SeqCst) {
                            *look = now;
                        }
                    }
                }
                4 => {
                    let queued: u64 = model.queue.iter().map(|(_, cost)| cost).sum();
                    let wait = model.due(queued + u64::from(cost));
                    match tokens.check(now, cost) {
                        Ok(()) => {
                            prop_assert!(model.queue.is_empty() && wait.is_zero());
                            model.debt += 1000 * u64::from(cost);
                        }
                        // A call that would be due waits only for the queue.
                        Err(GcraRejection::Wait(after)) => prop_assert_eq!(after, MIN_HINT.max(wait.into())),
                        Err(GcraRejection::Never) => prop_assert!(false),
                    }
                }
                _ => match Call::join(&tokens, now, cost) {
                    Some(call) => {
                        let look = call.poll(&tokens, now).expect("joined because it is not due");
                        model.queue.push_back((names, cost.into()));
                        calls.push((names, call, now.saturating_add(look)));
                        names += 1;
                    }
                    None => {
                        prop_assert!(model.queue.is_empty() && model.due(cost.into()).is_zero());
                        model.debt += 1000 * u64::from(cost);
                    }
                },
            }
        }
    }
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("deliberate panic"));
        }
    }

    let woken = Arc::new(Flag::default());
    let wakers = Wakers { wake: vec![Arc::new(Panics).into(), woken.clone().into()], drop: Vec::new() };
    let panics = std::panic::AssertUnwindSafe(|| drop(wakers));
    assert!(std::panic::catch_unwind(panics).is_err(), "the panic continues");
    assert!(woken.0.load(SeqCst));
}
