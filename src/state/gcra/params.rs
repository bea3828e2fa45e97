use std::time::Duration;

use super::word::UNITS_PER_NANO;

/// The rate and burst of a limiter in one word, so that they are read together.
///
/// ```text
/// [burst: 26 | exponent: 6 | mantissa: 32]     period = mantissa << exponent, in eighths of a nanosecond
/// ```
///
/// The period is exact below half a second, and rounded up by less than one part in two billion
/// above: the rate is never higher than configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(super) period: u64,
    pub(super) burst: u32,
}

/// The reason why parameters cannot be represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParamsError {
    /// A token takes so few units of time that rounding them up would change the rate.
    RateTooHigh,
    /// A token takes more than two years.
    RateTooLow,
    /// The burst takes more than two years to refill.
    BurstTooLong,
}

const MANTISSA_BITS: u32 = 32;
const EXPONENT_BITS: u32 = 6;

/// The longest `burst * period`: a quarter of the horizon.
const MAX_TOLERANCE: u64 = 1 << 59;

impl Params {
    pub(crate) const MAX_BURST: u32 = (1 << (64 - MANTISSA_BITS - EXPONENT_BITS)) - 1;

    /// `count` tokens in `per`, and a burst of `burst`, all above zero.
    pub(crate) fn new(count: u32, per: Duration, burst: u32) -> Result<Self, ParamsError> {
        let (count, burst) = (count.max(1), burst.clamp(1, Self::MAX_BURST));
        let per = per.as_nanos().checked_mul(UNITS_PER_NANO.into()).ok_or(ParamsError::RateTooLow)?;
        let period = per.div_ceil(u128::from(count));
        // Rounded up by more than a hundredth.
        if (period * u128::from(count) - per) * 100 > per {
            return Err(ParamsError::RateTooHigh);
        }
        let period = u64::try_from(period).ok().filter(|period| *period <= MAX_TOLERANCE);
        let params = Self::unpack(Self { period: period.ok_or(ParamsError::RateTooLow)?, burst }.pack());
        match params.period.checked_mul(burst.into()) {
            Some(tolerance) if tolerance <= MAX_TOLERANCE => Ok(params),
            _ if params.period > MAX_TOLERANCE => Err(ParamsError::RateTooLow),
            _ => Err(ParamsError::BurstTooLong),
        }
    }

    pub(crate) fn burst(self) -> u32 {
        self.burst
    }

    /// The time in which the burst refills, at most [`MAX_TOLERANCE`].
    #[inline]
    pub(super) fn tolerance(self) -> u64 {
        self.period * u64::from(self.burst)
    }

    pub(super) fn pack(self) -> u64 {
        let mut exponent = (u64::BITS - self.period.leading_zeros()).saturating_sub(MANTISSA_BITS);
        let mut mantissa = self.period.div_ceil(1 << exponent);
        if mantissa >> MANTISSA_BITS != 0 {
            // Rounding up has carried.
            exponent += 1;
            mantissa = self.period.div_ceil(1 << exponent);
        }
        u64::from(self.burst) << (MANTISSA_BITS + EXPONENT_BITS) | u64::from(exponent) << MANTISSA_BITS | mantissa
    }

    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        let mantissa = word & ((1 << MANTISSA_BITS) - 1);
        let exponent = (word >> MANTISSA_BITS) & ((1 << EXPONENT_BITS) - 1);
        Self { period: mantissa << exponent, burst: (word >> (MANTISSA_BITS + EXPONENT_BITS)) as u32 }
    }
}
