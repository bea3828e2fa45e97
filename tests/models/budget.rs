//! A retry budget against a plain count of tokens.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio_test::task::{self, Spawn};
use tower_rampart::{
    BoxError,
    clock::{Clock, ManualClock, Nanos},
    retry::{Backoff, Jitter, Retry, RetryBudget},
};

use super::support::{paused, recorder::Recorder};

const DELAY: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
enum Op {
    /// A call through the first or second retry, whose first attempts fail. Both share the budget.
    Call {
        second: bool,
        failures: u32,
    },
    /// A call that stays in the delay before its next attempt.
    Suspend {
        second: bool,
    },
    /// Drops a suspended call.
    Drop(usize),
    Deposit,
    Withdraw,
    GiveBack,
    SetAttempts(u32),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), 0_u32..6).prop_map(|(second, failures)| Op::Call { second, failures }),
        2 => any::<bool>().prop_map(|second| Op::Suspend { second }),
        1 => any::<usize>().prop_map(Op::Drop),
        1 => Just(Op::Deposit),
        1 => Just(Op::Withdraw),
        1 => Just(Op::GiveBack),
        1 => (1_u32..6).prop_map(Op::SetAttempts),
        1 => (0_u64..40).prop_map(Op::Advance),
    ]
}

/// The reference model, in thousandths of a token.
struct Model {
    tokens: u64,
    capacity: u64,
    deposit: u64,
    per_second: u64,
    refilled: Nanos,
}

impl Model {
    fn add(&mut self, thousandths: u64) {
        self.tokens = (self.tokens + thousandths).min(self.capacity);
    }

    /// The balance including the refill since the last withdrawal, and the time up to which it is
    /// counted. Time is counted in ticks: only that of whole thousandths is spent.
    fn refilled(&self, now: Nanos) -> (u64, Nanos) {
        const BILLION: u64 = 1_000_000_000;
        let tick = (self.capacity + 1).next_power_of_two() >> 6;
        let up = |nanos: u64| nanos.div_ceil(tick) * tick;
        let elapsed = (now.get() / tick * tick).saturating_sub(self.refilled.get());
        let gained = elapsed * self.per_second / BILLION;
        if self.tokens + gained >= self.capacity {
            return (self.capacity, Nanos::new(up(now.get())));
        }
        let spent = (gained * BILLION).div_ceil(self.per_second.max(1));
        (self.tokens + gained, Nanos::new(self.refilled.get() + up(spent)))
    }

    fn balance(&self, now: Nanos) -> u64 {
        self.refilled(now).0
    }

    fn withdraw(&mut self, now: Nanos) -> bool {
        let (balance, refilled) = self.refilled(now);
        if balance < 1000 {
            return false;
        }
        (self.tokens, self.refilled) = (balance - 1000, refilled);
        true
    }
}

/// Compares the budget with the model. A success deposits `thousandths` of a token.
async fn compare(capacity: u32, thousandths: u32, per_second: u32, ops: Vec<Op>) {
    let clock = ManualClock::new();
    clock.set(Nanos::new(1 << 50));
    let budget = RetryBudget::builder()
        .capacity(capacity)
        .ratio(f64::from(thousandths) / 1000.0)
        .min_per_second(per_second)
        .clock(clock.clone())
        .build()
        .unwrap();
    let recorder = Recorder::new();
    let retry = |name| {
        let builder = Retry::builder(name).max_attempts(3).backoff(Backoff::fixed(DELAY).jitter(Jitter::None));
        builder.budget(&budget).observer(recorder.clone()).build().unwrap()
    };
    let retries = [retry("first"), retry("second")];
    let mut model = Model {
        tokens: u64::from(capacity) * 1000,
        capacity: u64::from(capacity) * 1000,
        deposit: thousandths.into(),
        per_second: u64::from(per_second) * 1000,
        refilled: clock.now(),
    };
    let mut attempts = [3, 3];
    type Suspended = Spawn<Pin<Box<dyn Future<Output = Result<(), BoxError>>>>>;
    let mut suspended: Vec<Suspended> = Vec::new();
    for op in ops {
        match op {
            Op::Call { second, failures } => {
                let retry = &retries[usize::from(second)];
                let mut sent = 0;
                let result = retry.run(|attempt| {
                    sent = attempt;
                    async move { if attempt <= failures { Err(BoxError::from("boom")) } else { Ok(()) } }
                });
                let result = result.await;
                let mut expected = 1;
                while expected <= failures && expected < attempts[usize::from(second)] && model.withdraw(clock.now()) {
                    expected += 1;
                }
                assert_eq!(sent, expected, "attempts");
                assert_eq!(result.is_ok(), expected > failures);
                if result.is_ok() {
                    model.add(model.deposit);
                }
            }
            Op::Suspend { second } => {
                let retry = retries[usize::from(second)].clone();
                let call = async move { retry.run(|_| async { Err::<(), BoxError>("boom".into()) }).await };
                let mut call = task::spawn(call.boxed_local());
                let waits = attempts[usize::from(second)] > 1 && model.withdraw(clock.now());
                assert_eq!(call.poll().is_pending(), waits);
                if waits {
                    suspended.push(call);
                }
            }
            Op::Drop(which) if !suspended.is_empty() => {
                drop(suspended.swap_remove(which % suspended.len()));
                model.add(1000);
            }
            Op::Drop(_) => {}
            Op::Deposit => {
                budget.deposit();
                model.add(model.deposit);
            }
            Op::Withdraw => assert_eq!(budget.try_withdraw(), model.withdraw(clock.now())),
            Op::GiveBack => {
                budget.give_back();
                model.add(1000);
            }
            Op::SetAttempts(to) => {
                retries[0].set_max_attempts(to).unwrap();
                attempts[0] = to;
            }
            // In units of 2^26 ns, which the budget's clock represents exactly.
            Op::Advance(by) => clock.advance(Duration::from_nanos(by << 26)),
        }
        let snapshot = budget.snapshot();
        assert_eq!((snapshot.balance * 1000.0).round() as u64, model.balance(clock.now()), "the balance");
    }
    let unsent = suspended.len();
    drop(suspended);
    model.add(1000 * unsent as u64);
    assert_eq!((budget.snapshot().balance * 1000.0).round() as u64, model.balance(clock.now()));
    assert_eq!(recorder.count("admitted"), recorder.count("completed") + recorder.count("cancelled"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // R2, R17, R19 to R25, G23
    #[test]
    fn two_retries_on_one_budget_match_a_count_of_tokens(
        capacity in 1_u32..12,
        thousandths in prop_oneof![Just(0_u32), Just(100), Just(300), Just(900), 1_u32..3000],
        per_second in 0_u32..5,
        ops in prop::collection::vec(op(), 0..120),
    ) {
        paused(compare(capacity, thousandths, per_second, ops));
    }
}
