//! Medians, and ratios of paired measurements.
#![allow(unreachable_pub)] // shared by benches, as modules

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Returns the median of `a / b` per round, and its 95% confidence interval.
#[allow(dead_code)] // not every benchmark compares rounds
pub fn ratio(a: &[f64], b: &[f64]) -> (f64, f64, f64) {
    median_of(&a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>())
}

/// Returns the median of the rounds, and its 95% confidence interval (a bootstrap over the rounds).
#[allow(dead_code)]
pub fn median_of(rounds: &[f64]) -> (f64, f64, f64) {
    use rand::RngExt;

    let mut rng = rand::rng();
    let mut resample = || median(&rounds.iter().map(|_| rounds[rng.random_range(0..rounds.len())]).collect::<Vec<_>>());
    let mut medians: Vec<f64> = (0..1000).map(|_| resample()).collect();
    medians.sort_by(f64::total_cmp);
    (median(rounds), medians[25], medians[974])
}
