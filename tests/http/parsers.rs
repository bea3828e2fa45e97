//! Every parser of header values, against an oracle written independently of it, on generated
//! inputs and on those of the corpus (`tests/http/corpus/`).
//!
//! `PROPTEST_CASES` sets how many inputs are generated. A header's value is any bytes that `http`
//! accepts; `\n` separates the lines of a header that occurs more than once.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use proptest::prelude::*;
use tower_rampart::{
    BoxError, Classify,
    http::{
        ClientIp, DeadlineHeader, Destination, ForwardedIn, GrpcClassifier, HttpRepeat, PeerAddr, rate_limit_reset,
        retry_after,
    },
    request::Repeat,
};

/// The lines of a corpus file, unescaped.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/http/corpus/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().map(unescape).collect();
    assert!(lines.len() > 5, "{name}");
    lines
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, ()) {
            (b'\\', ()) => match rest.next().expect("an escape is complete") {
                b'n' => b'\n',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("\\{}", char::from(other)),
            },
            (byte, ()) => byte,
        });
    }
    bytes
}

/// Values built from these pieces, and from any bytes.
fn values(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// A header with these lines, or `None` if `http` does not accept them.
fn headers(name: &str, lines: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        headers.append(HeaderName::from_str(name).unwrap(), HeaderValue::from_bytes(line).ok()?);
    }
    Some(headers)
}

fn one_line(name: &str, value: &[u8]) -> Option<HeaderMap> {
    if value.contains(&b'\n') { None } else { headers(name, value) }
}

/// The text of a value, without the whitespace around it. `None` if it is not visible ASCII.
fn text(value: &[u8]) -> Option<&str> {
    let is_visible = value.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\t');
    is_visible.then(|| std::str::from_utf8(value).unwrap().trim())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|char| char.is_ascii_digit())
}

// Deadlines.

fn check_deadline(value: &[u8]) {
    let Some(headers) = one_line("x-request-timeout-ms", value) else { return };
    let expected = text(value).filter(|text| is_digits(text)).and_then(|text| {
        let significant = text.trim_start_matches('0');
        // 2^64 has twenty digits.
        (significant.len() <= 20).then(|| significant.parse::<u128>().unwrap_or(0))
    });
    let expected = expected.filter(|millis| *millis < 1 << 64).map(|millis| Duration::from_millis(millis as u64));
    assert_eq!(DeadlineHeader::default().read(&headers), expected, "{}", value.escape_ascii());
}

fn check_grpc_timeout(value: &[u8]) {
    let Some(headers) = one_line("grpc-timeout", value) else { return };
    let expected = text(value).and_then(|text| {
        let unit = text.chars().last()?;
        let nanos: u128 = match unit {
            'n' => 1,
            'u' => 1_000,
            'm' => 1_000_000,
            'S' => 1_000_000_000,
            'M' => 60_000_000_000,
            'H' => 3_600_000_000_000,
            _ => return None,
        };
        let count = text.strip_suffix(unit)?;
        if !is_digits(count) || count.len() > 8 {
            return None;
        }
        let nanos = nanos * count.parse::<u128>().unwrap();
        Some(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
    });
    assert_eq!(DeadlineHeader::grpc().read(&headers), expected, "{}", value.escape_ascii());
}

// Hints.

const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const DATE_SECONDS: i64 = 1_445_412_480;

/// Parses an HTTP date in the preferred form (RFC 9110, section 5.6.7), as seconds since 1970.
fn imf_fixdate(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let bytes = text.as_bytes();
    if bytes.len() != 29 || &text[3..5] != ", " || &text[25..] != " GMT" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().ok();
    let (day, year) = (number(5..7)?, number(12..16)?);
    let month = MONTHS.find(&text[8..11])? as i64 / 3 + 1;
    let (hour, minute, second) = (number(17..19)?, number(20..22)?, number(23..25)?);
    // Days since 1970, by counting.
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let days = years + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// An unsigned decimal number of seconds, in nanoseconds.
fn decimal(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = is_digits(whole) && fraction.chars().all(|char| char.is_ascii_digit());
    if !is_number {
        return None;
    }
    let whole: u128 = whole.parse().unwrap_or(u128::MAX / 2_000_000_000);
    let fraction: u128 = format!("{:0<9}", fraction.chars().take(9).collect::<String>()).parse().unwrap();
    Some(whole.min(u128::MAX / 2_000_000_000) * 1_000_000_000 + fraction)
}

/// Whether a duration is this many nanoseconds, within what a `f64` can express.
fn is_about(duration: Duration, nanos: u128) -> bool {
    let longest = Duration::MAX.as_nanos();
    let expected = nanos.min(longest);
    duration.as_nanos().abs_diff(expected) <= 1 + expected / (1 << 50)
}

fn check_retry_after(value: &[u8]) {
    let Some(mut headers) = one_line("retry-after", value) else { return };
    headers.insert("date", HeaderValue::from_static(DATE));
    let got = retry_after(&headers);
    let shown = value.escape_ascii();
    let Some(text) = text(value) else { return assert_eq!(got, None, "{shown}") };
    if let Some(nanos) = decimal(text) {
        return assert!(is_about(got.unwrap(), nanos), "{shown}: {got:?}");
    }
    // The oracle reads one of the three forms; `dates_in_all_forms` has the others.
    if let Some(at) = imf_fixdate(text)
        && got.is_some()
    {
        assert_eq!(got.unwrap().as_secs() as i64, (at - DATE_SECONDS).max(0), "{shown}");
    }
    if !text.contains(':') {
        assert_eq!(got, None, "{shown}");
    }
}

fn check_grpc_pushback(value: &[u8]) {
    let Some(headers) = one_line("grpc-retry-pushback-ms", value) else { return };
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    let millis = text(value).filter(|text| is_digits(text)).and_then(|text| text.parse::<u128>().ok());
    let millis = millis.filter(|millis| *millis < 1 << 32);
    let expected = millis.map_or(Duration::MAX, |millis| Duration::from_millis(millis as u64));
    let got = Classify::<_, BoxError>::retry_after(&GrpcClassifier, Ok(&response));
    assert_eq!(got, Some(expected), "{}", value.escape_ascii());
}

/// Headers as `name: value`, one per line. There is no second parser of all the forms that servers
/// send; nothing may panic, and a limit that is not used up asks for no wait.
fn check_rate_limit(lines: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("date", HeaderValue::from_static(DATE));
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[at + 1..].trim_ascii();
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(value)) else {
            return;
        };
        headers.append(name, value);
    }
    let reset = rate_limit_reset(&headers);
    let has_hint =
        headers.keys().any(|name| name.as_str().contains("ratelimit") || name.as_str().contains("rate-limit"));
    assert!(has_hint || reset.is_none());
    if !headers.contains_key("ratelimit") {
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("1"));
        let of_quota = ["requests", "tokens"].map(|quota| format!("x-ratelimit-reset-{quota}"));
        assert!(rate_limit_reset(&headers).is_none() || of_quota.iter().any(|name| headers.contains_key(name)));
    }
}

// Clients' addresses.

/// Parses a list of forwarded elements, from its beginning and strictly by the grammar of RFC 7239.
/// `None` if the list is malformed, otherwise the value of each element's `for`.
fn strict_forwarded(line: &str) -> Option<Vec<Option<String>>> {
    #[derive(PartialEq)]
    enum At {
        ElementStart,
        Name,
        ValueStart,
        Token,
        Quoted,
        Pair,
        AfterQuoted,
        AfterElement,
    }
    let is_token = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
    let mut elements = Vec::new();
    let (mut at, mut name, mut value) = (At::ElementStart, String::new(), String::new());
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut has_content = false;
    let finish_element = |pairs: &mut Vec<(String, String)>,
                          has_content: &mut bool,
                          elements: &mut Vec<Option<String>>| {
        if std::mem::take(has_content) {
            let mut found: Vec<_> =
                pairs.drain(..).filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value).collect();
            elements.push(if found.len() == 1 { found.pop() } else { None });
        }
    };
    for char in line.chars().chain([',']) {
        let is_space = matches!(char, ' ' | '\t');
        at = match at {
            At::ElementStart if is_space => At::ElementStart,
            At::ElementStart | At::Name if char == ';' && name.is_empty() => {
                has_content = true;
                At::Name
            }
            At::ElementStart | At::Name if is_token(char) => {
                has_content = true;
                name.push(char);
                At::Name
            }
            At::Name if char == '=' && !name.is_empty() => At::ValueStart,
            At::ValueStart if char == '"' => At::Quoted,
            At::ValueStart | At::Token if is_token(char) => {
                value.push(char);
                At::Token
            }
            At::Quoted if char == '\\' => At::Pair,
            At::Quoted if char == '"' => At::AfterQuoted,
            At::Quoted | At::Pair => {
                value.push(char);
                At::Quoted
            }
            At::Token | At::AfterQuoted if char == ';' => {
                pairs.push((std::mem::take(&mut name), std::mem::take(&mut value)));
                At::Name
            }
            At::ElementStart | At::Name | At::Token | At::AfterQuoted | At::AfterElement
                if char == ',' && (at != At::Name || name.is_empty()) =>
            {
                if matches!(at, At::Token | At::AfterQuoted) {
                    pairs.push((std::mem::take(&mut name), std::mem::take(&mut value)));
                }
                finish_element(&mut pairs, &mut has_content, &mut elements);
                At::ElementStart
            }
            At::Token | At::AfterQuoted | At::AfterElement if is_space => {
                if at != At::AfterElement {
                    pairs.push((std::mem::take(&mut name), std::mem::take(&mut value)));
                }
                At::AfterElement
            }
            At::Name if is_space && name.is_empty() => At::AfterElement,
            _ => return None,
        };
    }
    (at == At::ElementStart).then_some(elements)
}

/// Parses a node: an address, perhaps with a port.
fn oracle_node(node: &str) -> Option<IpAddr> {
    if let Ok(address) = node.parse::<SocketAddr>() {
        let is_plain = node.rsplit_once(':').is_some_and(|(_, port)| port.len() <= 5);
        return (is_plain && !node.contains('%')).then(|| address.ip());
    }
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address);
    }
    let (address, port) = match node.rsplit_once(':') {
        Some((address, port)) if !port.contains(']') => (address, Some(port)),
        _ => (node, None),
    };
    let is_port = |port: &str| match port.split_at_checked(1) {
        Some(("_", name)) => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
        // A number that is no port is well formed, and the address counts.
        _ => is_digits(port) && port.len() <= 5,
    };
    if !port.is_none_or(is_port) {
        return None;
    }
    match address.strip_prefix('[').and_then(|address| address.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The IPv4 address that an IPv6 address stands for.
fn oracle_canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                Ipv4Addr::new(a, b, c, d).into()
            }
            _ => ip,
        },
        ip => ip,
    }
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn address(headers: &HeaderMap, proxies: usize, header: ForwardedIn) -> Option<IpAddr> {
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    request.extensions_mut().insert(PeerAddr(SocketAddr::new(PEER, 4711)));
    ClientIp::new().behind(proxies, header).address(&request)
}

/// The address in the entry at this position from the end, or the peer's.
fn expected_address(entries: &[Option<IpAddr>], proxies: usize) -> Option<IpAddr> {
    match entries.len().checked_sub(proxies) {
        Some(index) => entries[index].map(oracle_canonical),
        None => Some(PEER),
    }
}

fn check_forwarded(lines: &[u8]) {
    let Some(headers) = headers("forwarded", lines) else { return };
    let parsed: Option<Vec<_>> = lines
        .split(|byte| *byte == b'\n')
        .map(|line| strict_forwarded(&line.iter().map(|byte| char::from(*byte)).collect::<String>()))
        .collect();
    for proxies in 1..4 {
        let got = address(&headers, proxies, ForwardedIn::Forwarded);
        if let Some(elements) = &parsed {
            let entries: Vec<_> =
                elements.iter().flatten().map(|value| value.as_deref().and_then(oracle_node)).collect();
            assert_eq!(got, expected_address(&entries, proxies), "{} behind {proxies}", lines.escape_ascii());
        }
    }
}

fn check_x_forwarded_for(lines: &[u8]) {
    let Some(headers) = headers("x-forwarded-for", lines) else { return };
    let joined = lines.iter().map(|byte| char::from(if *byte == b'\n' { b',' } else { *byte })).collect::<String>();
    let entry = |entry: &str| {
        let entry = entry.trim_matches([' ', '\t']);
        let is_quoted = entry.len() >= 2 && entry.starts_with('"') && entry.ends_with('"');
        (!entry.is_empty()).then(|| oracle_node(if is_quoted { &entry[1..entry.len() - 1] } else { entry }))
    };
    let entries: Vec<_> = joined.split(',').filter_map(entry).collect();
    for proxies in 1..4 {
        let got = address(&headers, proxies, ForwardedIn::XForwardedFor);
        assert_eq!(got, expected_address(&entries, proxies), "{} behind {proxies}", lines.escape_ascii());
    }
}

const NODES: &[&str] =
    &["192.0.2.7", "[2001:db8::1]", ":80", ":_p", "unknown", "_x", "::1", "::ffff:1.2.3.4", "0", ":"];

/// An element as a proxy writes it, with text that a client chose in one of its parameters.
fn trusted_element(hop: u8, chosen: &[u8]) -> String {
    let escaped: String = chosen
        .iter()
        .map(|byte| char::from(*byte))
        .filter(|char| matches!(char, ' '..='~'))
        .flat_map(|char| {
            let escape = matches!(char, '"' | '\\').then_some('\\');
            escape.into_iter().chain([char])
        })
        .collect();
    format!("for=192.0.2.{hop};host=\"{escaped}\";proto=https")
}

// Keys of requests.

fn check_idempotency_key(lines: &[u8]) {
    let Some(headers) = headers("idempotency-key", lines) else { return };
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    let key: String = lines.iter().map(|byte| char::from(*byte)).collect();
    let key = key.trim_matches([' ', '\t']);
    let has_key = !lines.contains(&b'\n')
        && match key.strip_prefix('"') {
            None => !key.is_empty(),
            Some(quoted) => {
                // The contents, up to the quote that is not escaped.
                let mut contents = String::new();
                let mut chars = quoted.chars();
                let closed = loop {
                    match chars.next() {
                        Some('\\') => match chars.next() {
                            Some(char) => contents.push(if char == ' ' { '_' } else { char }),
                            None => break false,
                        },
                        Some('"') => break true,
                        Some(char) => contents.push(char),
                        None => break false,
                    }
                };
                closed && contents.chars().any(|char| char != ' ')
            }
        };
    let repeat = HttpRepeat::new();
    let saved = repeat.save(&request).expect("it can be copied");
    assert_eq!(Repeat::<Request<_>>::is_idempotent(&repeat, &saved), Some(has_key), "{}", lines.escape_ascii());
}

/// Another spelling of a destination is the same key.
fn check_destination(uri: &[u8]) {
    let Ok(uri) = Uri::try_from(uri) else { return };
    let Some(key) = Destination::of_uri(&uri) else { return };
    let scheme = uri.scheme_str().unwrap_or("http");
    let respelled = [
        format!("{scheme}://{key}"),
        format!("{scheme}://{key}/other?path"),
        format!("{scheme}://someone@{key}").to_ascii_uppercase(),
    ];
    for spelling in respelled {
        let same = Uri::try_from(&spelling).map(|uri| Destination::of_uri(&uri));
        // The scheme's default port applies only if there is a scheme.
        if uri.scheme().is_some() || key.port().is_some() {
            assert_eq!(same.unwrap(), Some(key.clone()), "{uri} and {spelling}");
        }
    }
    assert!(!key.host().ends_with('.'), "{uri}");
    assert_eq!(key.host(), key.host().to_ascii_lowercase());
}

#[test]
fn the_corpus_passes() {
    type Check = fn(&[u8]);
    let parsers: [(&str, Check); 9] = [
        ("deadline", check_deadline),
        ("grpc_timeout", check_grpc_timeout),
        ("retry_after", check_retry_after),
        ("grpc_pushback", check_grpc_pushback),
        ("rate_limit", check_rate_limit),
        ("forwarded", check_forwarded),
        ("x_forwarded_for", check_x_forwarded_for),
        ("idempotency_key", check_idempotency_key),
        ("destination", check_destination),
    ];
    for (name, check) in parsers {
        for value in corpus(name) {
            check(&value);
        }
    }
}

#[test]
fn dates_in_all_forms() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for days in (0..20_000_u64).step_by(97) {
        let seconds = days * 86_400 + days % 86_400;
        let fixdate = httpdate::fmt_http_date(at(seconds));
        assert_eq!(imf_fixdate(&fixdate), Some(seconds as i64), "the oracle reads {fixdate}");
        let (weekday, rest) = fixdate.split_once(", ").unwrap();
        let parts: Vec<_> = rest.split(' ').collect();
        let (day, month, year, time) = (parts[0], parts[1], parts[2], parts[3]);
        let long = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        let long = long.iter().find(|long| long.starts_with(weekday)).unwrap();
        let asctime = format!("{weekday} {month} {:>2} {time} {year}", day.trim_start_matches('0'));
        for form in [fixdate.clone(), format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]), asctime] {
            let mut headers = one_line("retry-after", form.as_bytes()).unwrap();
            headers.insert("date", HeaderValue::from_static(DATE));
            let expected = (seconds as i64 - DATE_SECONDS).max(0) as u64;
            // Years of two digits: 1970 to 2069.
            assert_eq!(retry_after(&headers), Some(Duration::from_secs(expected)), "{form}");
        }
    }
}

proptest! {
    #[test]
    fn deadlines(value in values(&["0", "1", "18446744073709551615", "99", " ", "+", "-", ".", "ms"])) {
        check_deadline(&value);
    }

    #[test]
    fn grpc_timeouts(value in values(&["0", "1", "99999999", "n", "u", "m", "S", "M", "H", " ", "+"])) {
        check_grpc_timeout(&value);
    }

    #[test]
    fn retry_afters(value in values(&["0", "1", "99", ".", "1e3", "18446744073709551615", DATE, " GMT", "Wed, ", "Nov ", ":59"])) {
        check_retry_after(&value);
    }

    #[test]
    fn grpc_pushbacks(value in values(&["0", "1", "4294967295", "-", "+", ".", " "])) {
        check_grpc_pushback(&value);
    }

    #[test]
    fn rate_limits(value in values(&[
        "ratelimit: ", "x-ratelimit-reset: ", "x-ratelimit-reset-tokens: ", "x-ratelimit-remaining: ", "\n", "\"a\"", ";r=", ";t=",
        "0", "30", "18446744073709551615", "1000000000000", "reset=", "remaining=", ", ", "ms", "h", "m", "s", DATE,
    ])) {
        check_rate_limit(&value);
    }

    #[test]
    fn forwardeds(value in values(&[
        "for=", "for=192.0.2.7", "For=\"[2001:db8::1]:80\"", "host=a", ";", ",", ", ", "=", "\"", "\\", "\\\"", "\n", " ",
        "192.0.2.7", "[2001:db8::1]", ":_p", "x",
    ])) {
        check_forwarded(&value);
    }

    #[test]
    fn nodes(value in values(NODES)) {
        check_x_forwarded_for(&value);
        let mut forwarded = b"for=\"".to_vec();
        forwarded.extend(value.iter().filter(|byte| !matches!(byte, b'"' | b'\\' | b'\n')));
        forwarded.push(b'"');
        check_forwarded(&forwarded);
    }

    #[test]
    fn x_forwarded_fors(value in values(&["192.0.2.7", "203.0.113.7:80", ", ", ",", "\"", "\n", "[2001:db8::1]:80", "unknown", " "])) {
        check_x_forwarded_for(&value);
    }

    /// A client chooses what comes before the trusted elements, and some of what is in them.
    #[test]
    fn no_client_moves_past_the_trusted_hops(
        before in values(&["for=6.6.6.6", ",", ";", "\"", "\\", "\n", "host=\"", " ", "="]),
        chosen in values(&["\"", "\\", ",", ";", "for=9.9.9.9", "\\\"", " "]),
        proxies in 1..4_usize,
        joined: bool,
    ) {
        let trusted: Vec<_> = (1..=proxies).map(|hop| trusted_element(hop as u8, &chosen)).collect();
        let separator: &[u8] = if joined { b", " } else { b"\n" };
        let lines = [&before, separator, trusted.join(if joined { "," } else { "\n" }).as_bytes()].concat();
        if let Some(headers) = headers("forwarded", &lines) {
            let expected: IpAddr = "192.0.2.1".parse().unwrap();
            prop_assert_eq!(address(&headers, proxies, ForwardedIn::Forwarded), Some(expected));
        }
    }

    #[test]
    fn idempotency_keys(value in values(&["k", "\"", "\\", " ", "\t", "\n", ";x=1"])) {
        check_idempotency_key(&value);
    }

    #[test]
    fn destinations(value in values(&["http", "https", "://", "a.example", "A", ".", ":", "80", "443", "@", "[2001:DB8::1]", "/", "user"])) {
        check_destination(&value);
    }
}
