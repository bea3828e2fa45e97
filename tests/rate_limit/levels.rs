//! Keyed limiters within others: networks within networks, users within tenants.

use std::{
    hash::{Hash, Hasher},
    net::Ipv6Addr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::{Layer, ServiceExt};
use tower_rampart::{
    Rejection,
    clock::{Clock, ManualClock, Nanos},
    rate_limit::{KeyedRateLimiter, Rate},
};

use crate::support::{probe::Script, recorder::Recorder, rejection_of};

const QUARTER: Duration = Duration::from_secs(15 * 60);

fn per_quarter(calls: u32) -> Rate {
    Rate::new(calls, QUARTER)
}

fn network(address: &Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> (128 - bits) << (128 - bits))
}

/// The `subnet`th /64 of the `site`th /48.
fn subnet(site: u32, subnet: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001 << 112 | u128::from(site) << 80 | u128::from(subnet) << 64)
}

/// The tokens that a key has left.
fn left<K: Hash + ?Sized>(limiter: &KeyedRateLimiter<K>, key: &K) -> usize {
    let mut left = 0;
    while limiter.check_key(key).is_ok() {
        left += 1;
    }
    left
}

struct Networks {
    sites: KeyedRateLimiter<Ipv6Addr>,
    homes: KeyedRateLimiter<Ipv6Addr>,
    clients: KeyedRateLimiter<Ipv6Addr>,
}

/// 5 calls per /64, 20 per /56, 100 per /48.
fn networks(clock: &ManualClock) -> Networks {
    let builder = |name, calls| KeyedRateLimiter::builder(name, per_quarter(calls)).clock(clock.clone());
    let sites = builder("sites", 100).build().unwrap();
    let homes = builder("homes", 20).within(&sites, |home| Some(network(home, 48))).build().unwrap();
    let clients = builder("clients", 5).within(&homes, |client| Some(network(client, 56))).build().unwrap();
    Networks { sites, homes, clients }
}

#[test]
fn a_call_is_admitted_if_all_levels_admit_it_and_a_rejected_one_takes_no_token() {
    let clock = ManualClock::new();
    let Networks { sites, homes, clients } = networks(&clock);
    let admitted = |subnets: std::ops::Range<u16>| {
        let calls = subnets.flat_map(|number| [subnet(1, number); 10]);
        calls.filter(|client| clients.check_key(client).is_ok()).count()
    };
    assert_eq!(admitted(0..1), 5, "of one /64");
    assert_eq!(clients.check_key(&subnet(1, 0)).unwrap_err().name(), "clients");
    assert_eq!(admitted(1..256), 15, "20 in all of one /56");
    assert_eq!(admitted(256..1024), 60, "20 of each further /56");
    assert_eq!(admitted(1024..0x2000), 20, "100 in all of one /48");
    let rejection = clients.check_key(&subnet(1, 0x3000)).unwrap_err();
    assert_eq!((rejection.name().as_str(), rejection.retry_after()), ("sites", Some(QUARTER / 100)));
    assert_eq!(clients.peek_key(&subnet(1, 0x3000)).unwrap_err(), rejection);
    // Several levels reject: the longest wait is the one after which all admit the call.
    let rejection = clients.check_key(&subnet(1, 0)).unwrap_err();
    assert_eq!((rejection.name().as_str(), rejection.retry_after()), ("clients", Some(QUARTER / 5)));
    clock.advance(QUARTER / 5);
    assert!(clients.check_key(&subnet(1, 0)).is_ok());
    // Rejected calls took no token of any level.
    assert_eq!((left(&sites, &subnet(1, 0)), left(&homes, &subnet(1, 0x2000))), (19, 0));
    assert_eq!(clients.check_key_n(&subnet(2, 0), 6).unwrap_err().retry_after(), None);
    assert_eq!((left(&clients, &subnet(2, 0)), left(&homes, &subnet(2, 0)), left(&sites, &subnet(2, 0))), (5, 15, 80));
}

// A /48 has 65,536 keys of /64, more than the default table has slots.
#[test]
fn a_network_that_rotates_through_its_addresses_leaves_the_table_to_others() {
    const A_SECOND: u32 = 182;
    let flood = |clients: &KeyedRateLimiter<Ipv6Addr>, clock: &ManualClock| {
        let mut admitted = 0;
        for call in 0..A_SECOND * 180 {
            clock.advance(Duration::from_secs(1) / A_SECOND);
            admitted += u32::from(clients.check_key(&subnet(0, call as u16)).is_ok());
        }
        let honest = (1..=500).filter(|site| (0..5).all(|_| clients.check_key(&subnet(*site, 1)).is_ok())).count();
        (admitted, honest)
    };
    let clock = ManualClock::new();
    let flat = KeyedRateLimiter::builder("flat", per_quarter(5)).clock(clock.clone()).build().unwrap();
    let (admitted, honest) = flood(&flat, &clock);
    assert!(admitted > 10_000 && honest < 400, "one level shows what this is about: {admitted}, {honest}");

    let clock = ManualClock::new();
    let Networks { clients, .. } = networks(&clock);
    let (admitted, honest) = flood(&clients, &clock);
    assert!((119..=120).contains(&admitted), "{admitted}: the burst of 100, and 20 in three minutes");
    assert_eq!(honest, 500);
    let snapshot = clients.snapshot();
    assert!(snapshot.overflows == 0 && snapshot.active_keys <= 620, "{snapshot:?}");
}

#[test]
fn no_token_is_lost_or_made_when_callers_race_for_the_last_ones() {
    for round in 0..200 {
        let clock = ManualClock::new();
        let outer = KeyedRateLimiter::<u32>::builder("outer", per_quarter(60)).clock(clock.clone()).build().unwrap();
        let middle = KeyedRateLimiter::<u32>::builder("middle", per_quarter(40)).clock(clock.clone());
        let middle = middle.within(&outer, |_| Some(0)).build().unwrap();
        let inner = KeyedRateLimiter::<u32>::builder("inner", per_quarter(3)).clock(clock.clone());
        let inner = inner.within(&middle, |key| Some(key % 2)).build().unwrap();
        let start = std::sync::Barrier::new(4);
        let calls = |thread: u32| {
            start.wait();
            (0..40).filter(|call| inner.check_key(&((call + thread) % 8)).is_ok()).count()
        };
        let admitted: usize = std::thread::scope(|scope| {
            let calls = &calls;
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || calls(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // A token that another caller holds for a moment may be denied, but it is not lost.
        let late: usize = (0..8).map(|key| left(&inner, &key)).sum();
        assert_eq!(admitted + late, 24, "in round {round}");
        assert_eq!((left(&middle, &0), left(&outer, &0)), (28, 8), "in round {round}");
    }
}

/// A clock, and a key, that panic when their time has come.
#[derive(Clone, Default)]
struct Fuse(Arc<AtomicU32>);

impl Fuse {
    fn burn(&self) {
        let left = self.0.load(Relaxed);
        self.0.store(left.saturating_sub(1), Relaxed);
        assert_ne!(left, 1, "the fuse has burnt down");
    }
}

impl Clock for Fuse {
    fn now(&self) -> Nanos {
        self.burn();
        Nanos::new(1 << 40)
    }
}

struct Key(Fuse);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.burn();
        0_u8.hash(state);
    }
}

#[test]
fn a_panic_of_a_key_its_hash_or_a_clock_takes_no_token() {
    let fuse = Fuse::default();
    let outer = KeyedRateLimiter::<u8>::builder("outer", per_quarter(100)).clock(fuse.clone()).build().unwrap();
    let other = KeyedRateLimiter::<u8>::builder("other", per_quarter(100)).clock(fuse.clone()).build().unwrap();
    let within = fuse.clone();
    let inner = KeyedRateLimiter::<Key>::builder("inner", per_quarter(50)).clock(fuse.clone());
    let inner = inner.within(&outer, |_| Some(0)).within(&other, move |_| {
        within.burn();
        Some(0)
    });
    let inner = inner.build().unwrap();
    let mut panics = 0;
    for steps in 1.. {
        fuse.0.store(steps, Relaxed);
        match catch_unwind(AssertUnwindSafe(|| inner.check_key(&Key(fuse.clone())))) {
            Err(_) => panics += 1,
            Ok(result) => {
                result.unwrap();
                break;
            }
        }
    }
    assert!(panics >= 10, "{panics}");
    fuse.0.store(0, Relaxed);
    let all = || {
        let mut left = 0;
        while inner.check_key(&Key(Fuse::default())).is_ok() {
            left += 1;
        }
        left
    };
    assert_eq!((all(), left(&outer, &0), left(&other, &0)), (49, 50, 50), "one call was admitted");
}

#[tokio::test]
async fn a_layer_limits_a_user_within_its_tenant_and_by_its_address_and_reports_once() {
    let recorder = Recorder::new();
    let observed = KeyedRateLimiter::<str>::builder("tenants", per_quarter(3));
    let tenants = observed.observer(recorder.clone()).build().unwrap();
    let addresses = KeyedRateLimiter::<u8>::builder("addresses", per_quarter(2)).build().unwrap();
    let users = KeyedRateLimiter::<(&'static str, Option<u8>)>::builder("users", per_quarter(10))
        .within(&tenants, |(name, _)| Some(name.split_once('/')?.0.to_owned()))
        .within(&addresses, |(_, address)| *address)
        .observer(recorder.clone())
        .build()
        .unwrap();
    let key = |request: &&'static str| {
        let (name, address) = request.split_once(' ')?;
        Some((name, address.parse().ok()))
    };
    let service = users.layer(key).layer(Script::new().1);
    let mut outcomes = Vec::new();
    for request in ["a/x 1", "a/y 1", "b/z 1", "a/z -", "a/z -", "solo -", "keyless"] {
        let result = service.clone().oneshot(request).await;
        outcomes.push(rejection_of(&result).map(Rejection::name).map(ToString::to_string));
    }
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome.as_deref().unwrap_or("ok")).collect();
    assert_eq!(names, ["ok", "ok", "addresses", "ok", "tenants", "ok", "ok"]);
    assert_eq!((recorder.count("admitted"), recorder.count("completed"), recorder.count("rejected")), (5, 5, 2));
}
