//! One limit per key.

use std::time::Duration;

use tower::{Layer, ServiceExt};
use tower_rampart::{
    clock::ManualClock,
    rate_limit::{KeyedRateLimiter, KeyedRateLimiterBuilder, Rate, WhenFull, WithoutKey},
};

use super::refused;
use crate::support::{probe::Script, recorder::Recorder};

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

// L25: ten million distinct keys.
#[test]
fn a_flood_of_keys_stays_within_its_memory_and_resets_nobody() {
    let clock = ManualClock::new();
    let limiter: KeyedRateLimiter<u64> = KeyedRateLimiter::builder("clients", Rate::new(5, Duration::from_secs(900)))
        .max_keys(10_000)
        .clock(clock.clone())
        .build()
        .unwrap();
    let bytes = limiter.snapshot().bytes;
    assert!(bytes <= 36 * 10_000 * 2, "{bytes}");
    let victim = u64::MAX;
    assert!((0..5).all(|_| limiter.check_key(&victim).is_ok()));
    let flood = 10_000_000_u64;
    let mut admitted = 0_u64;
    for key in 0..flood {
        admitted += u64::from(limiter.check_key(&key).is_ok());
        if key % (flood / 100) == 0 {
            assert!(limiter.check_key(&victim).is_err(), "reset after {key} keys");
        }
    }
    let snapshot = limiter.snapshot();
    assert_eq!(snapshot.bytes, bytes);
    assert!(snapshot.active_keys * 8 <= bytes && snapshot.overflows > 0);
    assert!(admitted < flood / 4, "when all places are taken, those without one share a limit: {admitted}");
    clock.advance(Duration::from_secs(900));
    assert!((0..5).all(|_| limiter.check_key(&victim).is_ok()), "and in its time it is let in again");
}

#[test]
fn when_full_new_keys_may_be_refused() {
    let limiter: KeyedRateLimiter<u32> =
        KeyedRateLimiter::builder("c", Rate::per_hour(1)).max_keys(1).when_full(WhenFull::Refuse).build().unwrap();
    let admitted = (0..1000).filter(|key| limiter.check_key(key).is_ok()).count();
    assert_eq!(admitted, limiter.snapshot().active_keys, "one each, for those who have a place");
}

// L26
#[tokio::test]
async fn a_request_without_a_key_is_a_stated_case() {
    let key = |request: &&'static str| request.strip_prefix("user ");
    let cases =
        [(WithoutKey::Share, [true, false]), (WithoutKey::Pass, [true, true]), (WithoutKey::Refuse, [false, false])];
    for (without, expected) in cases {
        let recorder = Recorder::new();
        let limiter = limiter(Rate::per_hour(1)).observer(recorder.clone()).build().unwrap();
        let service = limiter.layer(key).without_key(without).layer(Script::new().1);
        assert!(service.clone().oneshot("user a").await.is_ok());
        assert!(service.clone().oneshot("user b").await.is_ok());
        assert!(refused(&service.clone().oneshot("user a").await).is_some());
        for expected in expected {
            assert_eq!(service.clone().oneshot("anonymous").await.is_ok(), expected, "{without:?}");
        }
        assert_eq!(recorder.count("admitted"), recorder.count("completed"));
        assert_eq!(recorder.count("admitted") + recorder.count("rejected"), 5);
    }
}

#[test]
fn a_bad_configuration_says_which_field() {
    let field = |builder: KeyedRateLimiterBuilder<str>| builder.build().unwrap_err().field();
    assert_eq!(field(limiter(Rate::per_second(0))), "rate");
    assert_eq!(field(limiter(Rate::new(1, Duration::ZERO))), "rate");
    assert_eq!(field(limiter(Rate::per_second(100_001))), "rate");
    assert_eq!(field(limiter(Rate::new(1, Duration::MAX))), "rate");
    assert_eq!(field(limiter(Rate::per_second(1)).burst(0)), "burst");
    assert_eq!(field(limiter(Rate::per_second(1)).max_keys(0)), "max_keys");
    assert_eq!(field(limiter(Rate::per_second(1)).max_keys(usize::MAX)), "max_keys");
}
