//! Division by a number that stays the same.

/// A divisor with its reciprocal. A division of 64 bits takes up to ninety cycles on processors in
/// use, a multiplication three or four.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Divisor {
    divisor: u64,
    reciprocal: u64,
}

impl Divisor {
    /// # Panics
    ///
    /// If the divisor is zero.
    pub(crate) fn new(divisor: u64) -> Self {
        Self { divisor, reciprocal: u64::MAX / divisor }
    }

    pub(crate) fn get(self) -> u64 {
        self.divisor
    }

    /// Returns the quotient and the remainder.
    #[inline]
    pub(crate) fn divide(self, number: u64) -> (u64, u64) {
        // At most two too small: the reciprocal, rounded down, is more than 2^64 / d - 2.
        let mut quotient = ((u128::from(number) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut remainder = number - quotient * self.divisor;
        for _ in 0..2 {
            if remainder >= self.divisor {
                (quotient, remainder) = (quotient + 1, remainder - self.divisor);
            }
        }
        (quotient, remainder)
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..20_u64, (u64::MAX - 20)..=u64::MAX, any::<u32>().prop_map(u64::from)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn it_divides_as_the_processor_does(number in number(), divisor in number()) {
            let divisor = divisor.max(1);
            prop_assert_eq!(Divisor::new(divisor).divide(number), (number / divisor, number % divisor));
            // Next to a multiple.
            let multiple = number - number % divisor;
            for near in [multiple.wrapping_sub(1), multiple, multiple.wrapping_add(1)] {
                prop_assert_eq!(Divisor::new(divisor).divide(near), (near / divisor, near % divisor));
            }
        }
    }
}
