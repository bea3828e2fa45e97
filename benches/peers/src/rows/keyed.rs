//! The memory of keyed limiters.

use std::num::NonZeroU32;

use governor::Quota;
use tower_rampart::rate_limit::{KeyedRateLimiter, Rate};

use crate::allocations::live;

pub struct Memory {
    pub name: &'static str,
    /// Bytes per key with as many keys as the limiter is configured for.
    pub bytes_per_key: f64,
    /// Bytes per initial key after four times as many keys.
    pub after_a_flood: f64,
}

/// Measures the memory per key with `keys` keys.
pub fn memory(keys: u64) -> Vec<Memory> {
    let ours = {
        let before = live();
        let builder = KeyedRateLimiter::<u64>::builder("u", Rate::per_minute(100)).max_keys(keys as usize);
        let limiter = builder.build().expect("the settings are valid");
        flood("rampart", keys, before, |key| drop(limiter.check_key(&key)))
    };
    let governor = {
        let before = live();
        let limiter = governor::RateLimiter::dashmap(Quota::per_minute(NonZeroU32::new(100).expect("not zero")));
        flood("governor, dashmap", keys, before, |key| drop(limiter.check_key(&key)))
    };
    vec![ours, governor]
}

fn flood(name: &'static str, keys: u64, before: usize, mut check: impl FnMut(u64)) -> Memory {
    (0..keys).for_each(&mut check);
    let per_key = |keys: u64| (live() - before) as f64 / keys as f64;
    let bytes_per_key = per_key(keys);
    (keys..4 * keys).for_each(&mut check);
    Memory { name, bytes_per_key, after_a_flood: per_key(keys) }
}
