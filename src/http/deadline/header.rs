use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the time left for a call.
///
/// It carries a duration, not an instant, so clock skew does no harm. Each hop loses the time that
/// the request spends on the network. Any caller can choose it: see [`receive`](Self::receive).
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_rampart::{http::DeadlineHeader, timeout::Timeout};
///
/// let header = DeadlineHeader::default(); // x-request-timeout-ms
/// // In a client, innermost: it sees all outer limits, and each attempt sends its own.
/// let client = ServiceBuilder::new()
///     .layer(Timeout::new("inventory", Duration::from_secs(2)).layer())
///     .layer(header.send());
/// // In a server, outermost: the timeout inside enforces whichever limit is shorter, and the server's own calls see the time
/// // that is left.
/// let server = ServiceBuilder::new()
///     .layer(header.receive())
///     .layer(Timeout::new("api", Duration::from_secs(10)).layer());
/// # let _ = (client, server);
/// ```
#[derive(Clone, Debug)]
pub struct DeadlineHeader {
    name: HeaderName,
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Grpc,
    Millis,
}

impl DeadlineHeader {
    /// Uses gRPC's `grpc-timeout`.
    pub const fn grpc() -> Self {
        Self { name: HeaderName::from_static("grpc-timeout"), format: Format::Grpc }
    }

    /// Uses a header of this name, in milliseconds.
    pub const fn millis(name: HeaderName) -> Self {
        Self { name, format: Format::Millis }
    }

    /// Returns the limit in these headers; `None` if it is missing or malformed.
    pub fn read(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(&self.name)?.to_str().ok()?.trim();
        match self.format {
            Format::Millis => digits(text).map(Duration::from_millis),
            Format::Grpc => {
                let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
                let count = digits(count).filter(|_| count.len() <= 8)?;
                Some(match unit {
                    "H" => Duration::from_secs(count * 3600),
                    "M" => Duration::from_secs(count * 60),
                    "S" => Duration::from_secs(count),
                    "m" => Duration::from_millis(count),
                    "u" => Duration::from_micros(count),
                    "n" => Duration::from_nanos(count),
                    _ => return None,
                })
            }
        }
    }

    /// Writes the limit, rounded down, but never below the smallest value that the format can
    /// express.
    pub fn write(&self, limit: Duration, headers: &mut HeaderMap) {
        let value = match self.format {
            Format::Millis => HeaderValue::from(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)),
            Format::Grpc => {
                // The format allows at most eight digits.
                let fits = |count: u128| (count < 100_000_000).then_some(count);
                let text = if let Some(micros) = fits(limit.as_micros()) {
                    format!("{}u", micros.max(1))
                } else if let Some(millis) = fits(limit.as_millis()) {
                    format!("{millis}m")
                } else {
                    format!("{}S", limit.as_secs().min(99_999_999))
                };
                let Ok(value) = HeaderValue::try_from(text) else { return };
                value
            }
        };
        headers.insert(self.name.clone(), value);
    }
}

impl Default for DeadlineHeader {
    /// Uses `x-request-timeout-ms`, in milliseconds.
    fn default() -> Self {
        Self::millis(HeaderName::from_static("x-request-timeout-ms"))
    }
}

fn digits(text: &str) -> Option<u64> {
    // `parse` would also accept a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
