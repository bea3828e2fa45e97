//! The keyed rate limiter: one limit per key.

use std::{
    hash::{BuildHasherDefault, Hasher},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{
    AsRejection,
    clock::ManualClock,
    rate_limit::{KeyedRateLimiter, KeyedRateLimiterBuilder, MissingKey, Rate, WhenFull},
};

use crate::support::{
    BoxError, call, poll_once, poll_ready,
    probe::{Ready, Reply, Script},
    recorder::Recorder,
    rejection_of,
};

fn limiter(rate: Rate) -> KeyedRateLimiterBuilder<str> {
    KeyedRateLimiter::builder("users", rate)
}

// L24
#[test]
fn each_key_has_its_own_tokens() {
    let limiter = limiter(Rate::per_hour(2)).build().unwrap();
    for key in ["alice", "bob"] {
        assert!(limiter.check_key(key).is_ok() && limiter.check_key(key).is_ok());
        assert_eq!(limiter.check_key(key).unwrap_err().name(), "users");
        assert!(limiter.peek_key(key).is_err());
    }
    assert!(limiter.peek_key("carol").is_ok());
    assert_eq!(limiter.snapshot().active_keys, 2);
    assert_eq!(limiter.check_key_n("carol", 3).unwrap_err().retry_after(), None);
}

/// A hasher for numbers that is fast even in debug builds.
#[derive(Clone, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

type Mixing = BuildHasherDefault<Mix>;

// L25: ten million distinct keys from two threads.
#[test]
fn a_flood_of_keys_stays_within_its_memory_and_resets_no_key() {
    const FLOOD: u64 = 10_000_000;
    const VICTIMS: u64 = 100;
    let clock = ManualClock::new();
    let limiter: KeyedRateLimiter<u64, _> =
        KeyedRateLimiter::builder("clients", Rate::new(5, Duration::from_secs(900)))
            .max_keys(10_000)
            .hasher(Mixing::default())
            .clock(clock.clone())
            .build()
            .unwrap();
    let bytes = limiter.snapshot().bytes;
    assert!(bytes <= 36 * 10_000 * 2, "{bytes}");
    let victims = || (0..VICTIMS).map(|victim| u64::MAX - victim);
    victims().for_each(|victim| assert!((0..5).all(|_| limiter.check_key(&victim).is_ok())));
    let flood = |from: u64| {
        let mut admitted = 0_u64;
        for key in from..from + FLOOD / 2 {
            admitted += u64::from(limiter.check_key(&key).is_ok());
            if key % (FLOOD / 100) == 0 {
                assert!(victims().all(|victim| limiter.check_key(&victim).is_err()), "reset after {key} keys");
            }
        }
        admitted
    };
    let admitted: u64 = std::thread::scope(|scope| {
        let other = scope.spawn(|| flood(FLOOD / 2));
        flood(0) + other.join().unwrap()
    });
    let snapshot = limiter.snapshot();
    assert_eq!(snapshot.bytes, bytes);
    assert!(snapshot.active_keys * 8 <= bytes && snapshot.overflows > 0);
    assert!(admitted < FLOOD / 100, "once the table is full, new keys share a limit: {admitted}");
    clock.advance(Duration::from_secs(900));
    assert!(
        victims().all(|victim| (0..5).all(|_| limiter.check_key(&victim).is_ok())),
        "they are admitted again after their period"
    );
}

// L25: idle entries are reused, so the number of keys over time is not bounded.
#[test]
fn entries_of_idle_keys_are_reused() {
    let clock = ManualClock::new();
    let limiter: KeyedRateLimiter<u64, _> = KeyedRateLimiter::builder("c", Rate::per_second(1))
        .max_keys(500)
        .hasher(Mixing::default())
        .clock(clock.clone())
        .build()
        .unwrap();
    for key in 0..10_000 {
        assert!(limiter.check_key(&key).is_ok() && limiter.check_key(&key).is_err());
        clock.advance(Duration::from_millis(20));
    }
    let snapshot = limiter.snapshot();
    assert!((49..=51).contains(&snapshot.active_keys), "{}", snapshot.active_keys);
    assert_eq!(snapshot.overflows, 0);
}

// L27
#[test]
fn eight_threads_share_each_keys_tokens_exactly() {
    let limiter: KeyedRateLimiter<u64> = KeyedRateLimiter::builder("c", Rate::per_hour(50)).build().unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let work = |_| scope.spawn(|| (0..1000).filter(|turn| limiter.check_key(&(turn % 5)).is_ok()).count());
        (0..8).map(work).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 250, "of 8000");
}

// G23
#[tokio::test]
async fn every_call_admitted_by_the_handle_has_a_terminal_event() {
    let recorder = Recorder::new();
    let limiter = limiter(Rate::per_hour(3)).observer(recorder.clone()).build().unwrap();
    limiter.check_key("alice").unwrap();
    limiter.run_key("alice", async { Ok::<_, BoxError>(()) }).await.unwrap();
    limiter.run_key("alice", async { Err::<(), BoxError>("boom".into()) }).await.unwrap_err();
    let error = limiter.run_key("alice", async { Ok::<_, BoxError>(()) }).await.unwrap_err();
    assert!(error.as_rejection().is_some());
    assert!(poll_once(limiter.run_key("bob", std::future::pending::<Result<(), BoxError>>())).is_pending());
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "completed success",
            "admitted",
            "completed failure",
            "rejected rate_limited",
            "admitted",
            "cancelled",
        ]
    );
}

// G1, G2, G9, G10, G13, G14, G16, G23
#[tokio::test(start_paused = true)]
async fn the_layer_passes_inner_results_and_reports_one_terminal_event_per_call() {
    let recorder = Recorder::new();
    let limiter = limiter(Rate::per_hour(100)).observer(recorder.clone()).build().unwrap();
    let (script, probe) = Script::new();
    let mut service = task::spawn(limiter.layer(|_: &&'static str| Some("alice")).layer(probe));
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut service));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    script.set_ready(Ready::Err("dead"));
    let error = assert_ready!(poll_ready(&mut service)).unwrap_err();
    assert_eq!(error.to_string(), "dead");
    script.set_ready(Ready::Yes);
    let mut service = service.into_inner();
    script.reply(Reply::Err("boom".into()));
    assert_eq!(call(&mut &mut service).await.unwrap_err().to_string(), "boom");
    drop(service.ready().await.unwrap().call("never polled"));
    script.reply(Reply::Later);
    let mut pending = task::spawn(service.ready().await.unwrap().call("dropped"));
    assert_pending!(pending.poll());
    drop(pending);
    for reply in [Reply::PanicInCall, Reply::PanicInPoll] {
        script.reply(reply);
        assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
    }
    assert_eq!((recorder.count("admitted"), recorder.count("completed failure"), script.live()), (5, 3, 0));
    assert_eq!(recorder.count("cancelled"), 2);
}

#[test]
fn a_full_table_can_reject_new_keys() {
    let limiter: KeyedRateLimiter<u32> =
        KeyedRateLimiter::builder("c", Rate::per_hour(1)).max_keys(1).when_full(WhenFull::Reject).build().unwrap();
    let admitted = (0..1000).filter(|key| limiter.check_key(key).is_ok()).count();
    assert_eq!(admitted, limiter.snapshot().active_keys, "one call for each key with an entry");
}

// L26
#[tokio::test]
async fn a_request_without_a_key_follows_the_missing_key_setting() {
    let key = |request: &&'static str| request.strip_prefix("user ");
    let cases =
        [(MissingKey::Share, [true, false]), (MissingKey::Allow, [true, true]), (MissingKey::Reject, [false, false])];
    for (without, expected) in cases {
        let recorder = Recorder::new();
        let limiter = limiter(Rate::per_hour(1)).observer(recorder.clone()).build().unwrap();
        let service = limiter.layer(key).missing_key(without).layer(Script::new().1);
        assert!(service.clone().oneshot("user a").await.is_ok());
        assert!(service.clone().oneshot("user b").await.is_ok());
        assert!(rejection_of(&service.clone().oneshot("user a").await).is_some());
        for expected in expected {
            assert_eq!(service.clone().oneshot("anonymous").await.is_ok(), expected, "{without:?}");
        }
        assert_eq!(recorder.count("admitted"), recorder.count("completed"));
        assert_eq!(recorder.count("admitted") + recorder.count("rejected"), 5);
    }
}

#[test]
fn a_configuration_error_names_the_field() {
    let field = |builder: KeyedRateLimiterBuilder<str>| builder.build().unwrap_err().field();
    assert_eq!(field(limiter(Rate::per_second(0))), "rate");
    assert_eq!(field(limiter(Rate::new(1, Duration::ZERO))), "rate");
    assert_eq!(field(limiter(Rate::per_second(100_001))), "rate");
    assert_eq!(field(limiter(Rate::new(1, Duration::MAX))), "rate");
    assert_eq!(field(limiter(Rate::per_second(1)).burst(0)), "burst");
    assert_eq!(field(limiter(Rate::per_second(1)).max_keys(0)), "max_keys");
    assert_eq!(field(limiter(Rate::per_second(1)).max_keys(usize::MAX)), "max_keys");
}
