//! How long a response asks to be left alone.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, header};

/// How long the response asks its client to wait, by `Retry-After`: seconds, or an HTTP date.
///
/// A date is compared with the response's own `Date`, so that clocks which differ do no harm, and with the time here
/// only where that is missing; one that has passed is a wait of zero. Also understood: `retry-after-ms`, and a fraction
/// of a second. `None` when there is none, or when it is not understood.
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

/// How long until the limit that was exceeded is reset, by the headers that are in use for it.
///
/// Understood are, in this order: `RateLimit` (the quotas that have nothing left; both the structured field
/// `"name";r=0;t=30` and the older `limit=10, remaining=0, reset=30`), then `RateLimit-Reset`, `X-RateLimit-Reset-After`,
/// `X-RateLimit-Reset`, `X-Rate-Limit-Reset`, and `x-ratelimit-reset-requests` and `-tokens` (the longer). A number is in
/// seconds; one above a billion is a time in seconds, above a trillion in milliseconds, since 1970. Also understood are
/// HTTP dates and durations such as `6m0s`. `None` when there is none that is understood, or when `X-RateLimit-Remaining`
/// (or its sisters) says that the limit is not used up, so that the refusal has another reason.
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
        .filter(|what| {
            let left = text(headers, &format!("x-ratelimit-remaining-{what}")).and_then(|value| number(value, 1.0));
            left.is_none_or(|left| left.is_zero())
        })
        .filter_map(|what| reset(text(headers, &format!("x-ratelimit-reset-{what}"))?, headers))
        .max()
}

/// `None` when there is no such field; `Some(None)` when it says that no quota is used up.
fn rate_limit_field(headers: &HeaderMap) -> Option<Option<Duration>> {
    let mut found = false;
    let mut longest = None;
    for value in headers.get_all("ratelimit") {
        let Ok(value) = value.to_str() else { continue };
        // The older form has one quota, spread over the list; the structured one has one an item.
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
            found.0 = value.parse().ok();
        } else if name == reset {
            found.1 = number(value, 1.0);
        }
    }
    found
}

/// gRPC's own hint, in a response's headers or trailers: a negative or unreadable one asks not to be asked again.
pub(super) fn grpc_pushback(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-retry-pushback-ms")?;
    let millis = value.to_str().ok().and_then(|value| value.trim().parse::<u32>().ok());
    Some(millis.map_or(Duration::MAX, |millis| Duration::from_millis(millis.into())))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    // Names are given in lower case here, as they are kept.
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A count of units of so many seconds, without a sign.
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
        return until_date(value, headers).or_else(|| units(value));
    };
    let since_1970 = match number.as_secs() {
        ..BILLION => return Some(number),
        seconds if seconds < 1000 * BILLION => number,
        millis => Duration::from_millis(millis),
    };
    let at = SystemTime::UNIX_EPOCH.checked_add(since_1970)?;
    Some(at.duration_since(now(headers)).unwrap_or_default())
}

/// `1h2m3.5s`, `20ms`.
fn units(value: &str) -> Option<Duration> {
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

/// The server's time, if it tells it.
fn now(headers: &HeaderMap) -> SystemTime {
    let date = text(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    date.unwrap_or_else(SystemTime::now)
}
