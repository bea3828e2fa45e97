//! How long a response asks the client to wait.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, header};

/// Returns how long the response asks the client to wait, from `Retry-After` in seconds or as an
/// HTTP date.
///
/// A date is compared with the response's own `Date`, so clock skew does no harm, and with the
/// local clock only if `Date` is missing. A date in the past is a wait of zero. `retry-after-ms`
/// and fractions of a second are understood too. `None` if there is no such header or it is
/// malformed.
///
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use tower_rampart::http::retry_after;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("date", "Wed, 21 Oct 2015 07:28:00 GMT".parse()?);
/// headers.insert("retry-after", "Wed, 21 Oct 2015 07:29:30 GMT".parse()?);
/// assert_eq!(retry_after(&headers), Some(Duration::from_secs(90)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(millis) = text(headers, "retry-after-ms").and_then(|value| number(value, 1e-3)) {
        return Some(millis);
    }
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    number(value, 1.0).or_else(|| until_date(value, headers))
}

/// Returns the time until the exceeded rate limit resets, from the headers in common use.
///
/// Read in this order: `RateLimit` (those quotas that are used up, both as the structured field
/// `"name";r=0;t=30` and in the older form `limit=10, remaining=0, reset=30`), `RateLimit-Reset`,
/// `X-RateLimit-Reset-After`, `X-RateLimit-Reset`, `X-Rate-Limit-Reset`, and the longer of
/// `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens`.
///
/// A number is in seconds. Above a billion it is a time since 1970 in seconds, above a trillion in
/// milliseconds. HTTP dates and durations such as `6m0s` are understood too. `None` if no header is
/// understood, or if `X-RateLimit-Remaining` (or a variant of it) shows that the limit is not used
/// up, so that the response has another reason.
pub fn rate_limit_reset(headers: &HeaderMap) -> Option<Duration> {
    if let Some(reset) = rate_limit_field(headers) {
        return reset;
    }
    let left = ["ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining"];
    if left.iter().any(|name| text(headers, name).and_then(|value| number(value, 1.0)).is_some_and(|n| !n.is_zero())) {
        return None;
    }
    let single = ["ratelimit-reset", "x-ratelimit-reset-after", "x-ratelimit-reset", "x-rate-limit-reset"];
    if let Some(reset) = single.iter().find_map(|name| reset(text(headers, name)?, headers)) {
        return Some(reset);
    }
    ["requests", "tokens"]
        .iter()
        .filter(|quota| {
            let left = text(headers, &format!("x-ratelimit-remaining-{quota}")).and_then(|value| number(value, 1.0));
            left.is_none_or(|left| left.is_zero())
        })
        .filter_map(|quota| reset(text(headers, &format!("x-ratelimit-reset-{quota}"))?, headers))
        .max()
}

/// Returns `None` if there is no such field, and `Some(None)` if no quota is used up.
fn rate_limit_field(headers: &HeaderMap) -> Option<Option<Duration>> {
    let mut found = false;
    let mut longest = None;
    for value in headers.get_all("ratelimit") {
        let Ok(value) = value.to_str() else { continue };
        // The older form spreads one quota over the list; the structured field has one quota per
        // item.
        if value.contains("reset=") {
            let parameters = value.split([',', ';']);
            let (left, reset) = quota(parameters, "remaining", "reset");
            found = true;
            longest = longest.max(reset.filter(|_| left.is_none_or(|left| left == 0)));
            continue;
        }
        for item in value.split(',') {
            let (left, reset) = quota(item.split(';'), "r", "t");
            found |= reset.is_some() || left.is_some();
            longest = longest.max(reset.filter(|_| left == Some(0)));
        }
    }
    found.then_some(longest)
}

fn quota<'v>(parameters: impl Iterator<Item = &'v str>, left: &str, reset: &str) -> (Option<u64>, Option<Duration>) {
    let mut found = (None, None);
    for (name, value) in parameters.filter_map(|parameter| parameter.trim().split_once('=')) {
        if name == left {
            found.0 = unsigned(value);
        } else if name == reset {
            found.1 = number(value, 1.0);
        }
    }
    found
}

/// Returns gRPC's own hint, from headers or trailers. A negative or malformed value asks for no
/// retry at all.
pub(super) fn grpc_pushback(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-retry-pushback-ms")?;
    let millis = value.to_str().ok().and_then(|value| unsigned(value.trim())?.try_into().ok());
    Some(millis.map_or(Duration::MAX, |millis: u32| Duration::from_millis(millis.into())))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Parses an unsigned integer. `parse` alone would also accept a plus sign.
fn unsigned(value: &str) -> Option<u64> {
    value.parse().ok().filter(|_| !value.starts_with('+'))
}

/// Parses an unsigned number of units, each `unit` seconds long.
fn number(value: &str, unit: f64) -> Option<Duration> {
    let is_number = value.starts_with(|first: char| first.is_ascii_digit())
        && value.chars().all(|char| char.is_ascii_digit() || char == '.');
    if !is_number {
        return None;
    }
    match value.parse::<u64>() {
        Ok(whole) if unit == 1.0 => Some(Duration::from_secs(whole)),
        _ => Some(Duration::try_from_secs_f64(value.parse::<f64>().ok()? * unit).unwrap_or(Duration::MAX)),
    }
}

fn reset(value: &str, headers: &HeaderMap) -> Option<Duration> {
    const BILLION: u64 = 1_000_000_000;
    let Some(number) = number(value, 1.0) else {
        return until_date(value, headers).or_else(|| duration_with_units(value));
    };
    let since_1970 = match number.as_secs() {
        ..BILLION => return Some(number),
        seconds if seconds < 1000 * BILLION => number,
        millis => Duration::from_millis(millis),
    };
    let at = SystemTime::UNIX_EPOCH.checked_add(since_1970)?;
    Some(at.duration_since(now(headers)).unwrap_or_default())
}

/// Parses a duration such as `1h2m3.5s` or `20ms`.
fn duration_with_units(value: &str) -> Option<Duration> {
    let mut rest = value;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (count, tail) = rest.split_at(rest.find(|char: char| char.is_ascii_alphabetic())?);
        let end = tail.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(tail.len());
        let unit = match &tail[..end] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        sum = sum.saturating_add(number(count, unit)?);
        rest = &tail[end..];
    }
    (!value.is_empty()).then_some(sum)
}

fn until_date(value: &str, headers: &HeaderMap) -> Option<Duration> {
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now(headers)).unwrap_or_default())
}

/// Returns the server's time if the response has it, else the local time.
fn now(headers: &HeaderMap) -> SystemTime {
    let date = text(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    date.unwrap_or_else(SystemTime::now)
}
