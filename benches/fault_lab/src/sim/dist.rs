use rand::{RngExt, rngs::SmallRng};

/// How long a piece of work takes, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Dist {
    /// Always the same.
    Constant(f64),
    /// Memoryless, with this mean.
    Exponential(f64),
    /// A Pareto distribution with tail index 1.5, which has no variance, cut off at `max`.
    HeavyTail {
        /// The shortest.
        min: f64,
        /// The longest.
        max: f64,
    },
    /// Uniform.
    Uniform(f64, f64),
}

impl Dist {
    /// A draw, times `factor`, in whole milliseconds: rounded up or down at random, so that the mean stays.
    pub fn millis(self, factor: f64, rng: &mut SmallRng) -> u64 {
        let share = 1.0 - rng.random::<f64>(); // above 0
        let exact = factor
            * match self {
                Self::Constant(millis) => millis,
                Self::Exponential(mean) => -mean * libm::log(share),
                Self::HeavyTail { min, max } => (min * libm::pow(share, -1.0 / 1.5)).min(max),
                Self::Uniform(low, high) => low + (high - low) * share,
            };
        ((exact + rng.random::<f64>()) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn rounding_keeps_the_mean() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut mean = |dist: Dist| (0..100_000).map(|_| dist.millis(1.0, &mut rng) as f64).sum::<f64>() / 1e5;
        assert!((mean(Dist::Constant(2.3)) - 2.3).abs() < 0.02);
        assert!((mean(Dist::Exponential(50.0)) - 50.0).abs() < 0.7);
        assert!((mean(Dist::Uniform(10.0, 30.0)) - 20.0).abs() < 0.2);
        // A Pareto with index 1.5 has three times its minimum for a mean; the cut costs a little.
        assert!((2.6..3.0).contains(&(mean(Dist::HeavyTail { min: 10.0, max: 2000.0 }) / 10.0)));
    }
}
