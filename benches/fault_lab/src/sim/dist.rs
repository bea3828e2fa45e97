use rand::{RngExt, rngs::SmallRng};

/// A distribution of service times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Dist {
    /// Constant.
    Constant(f64),
    /// Exponential, with this mean.
    Exponential(f64),
    /// A Pareto distribution with tail index 1.5 (infinite variance), capped at `max`.
    HeavyTail {
        /// The minimum.
        min: f64,
        /// The maximum.
        max: f64,
    },
    /// Uniform between two bounds.
    Uniform(f64, f64),
}

impl Dist {
    /// Draws a time and multiplies it by `factor`. The result is rounded up or down to whole
    /// milliseconds at random, so that the mean is preserved.
    pub fn millis(self, factor: f64, rng: &mut SmallRng) -> u64 {
        let uniform = 1.0 - rng.random::<f64>(); // above 0
        let exact = factor
            * match self {
                Self::Constant(millis) => millis,
                Self::Exponential(mean) => -mean * libm::log(uniform),
                Self::HeavyTail { min, max } => (min * libm::pow(uniform, -1.0 / 1.5)).min(max),
                Self::Uniform(low, high) => low + (high - low) * uniform,
            };
        ((exact + rng.random::<f64>()) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn rounding_preserves_the_mean() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut mean = |dist: Dist| (0..100_000).map(|_| dist.millis(1.0, &mut rng) as f64).sum::<f64>() / 1e5;
        assert!((mean(Dist::Constant(2.3)) - 2.3).abs() < 0.02);
        assert!((mean(Dist::Exponential(50.0)) - 50.0).abs() < 0.7);
        assert!((mean(Dist::Uniform(10.0, 30.0)) - 20.0).abs() < 0.2);
        // The mean of a Pareto with index 1.5 is three times its minimum; the cap lowers it a
        // little.
        assert!((2.6..3.0).contains(&(mean(Dist::HeavyTail { min: 10.0, max: 2000.0 }) / 10.0)));
    }
}
