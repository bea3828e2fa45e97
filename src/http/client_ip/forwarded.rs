//! Parsers of `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Both are lists to which each proxy appends. All that a client wrote comes first, and it may be
//! anything: an open quote that would swallow what follows, for example. So the lists are read from
//! the end. What the trusted proxies appended is well formed, and there the two directions agree:
//!
//! - Outside of a quoted string there is no backslash. So a quote after an odd number of
//!   backslashes is part of a quoted pair, and any other quote opens or closes a string, in either
//!   direction.
//! - A comma outside of quoted strings separates elements. Empty elements do not count (RFC 9110,
//!   section 5.6.1).

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The entry that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// There are fewer entries.
    Missing,
    /// It is no address, or malformed.
    Unknown,
    Address(IpAddr),
}

impl From<Option<IpAddr>> for Hop {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Unknown, Self::Address)
    }
}

/// Returns the address in the entry of `X-Forwarded-For` at `index`, counted from the end.
pub(super) fn x_forwarded_for(headers: &HeaderMap, index: usize) -> Hop {
    let separate = |line| split_from_end(line, |_| false);
    match from_end(headers, &X_FORWARDED_FOR, index, separate) {
        None => Hop::Missing,
        Some(entry) => {
            let unquoted = entry.strip_prefix(b"\"").and_then(|entry| entry.strip_suffix(b"\""));
            node(unquoted.unwrap_or(entry)).into()
        }
    }
}

/// Returns the address in the element of `Forwarded` at `index`, counted from the end.
pub(super) fn forwarded(headers: &HeaderMap, index: usize) -> Hop {
    let separate = |line| split_from_end(line, |before: &[u8]| !is_escaped(before));
    match from_end(headers, &header::FORWARDED, index, separate) {
        None => Hop::Missing,
        Some(element) => forwarded_for(element).and_then(|value| node(&value)).into(),
    }
}

/// Returns the entry at `index`, counted from the end of all lines of the header together.
fn from_end<'h, I>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    index: usize,
    separate: impl Fn(&'h [u8]) -> I,
) -> Option<&'h [u8]>
where
    I: Iterator<Item = &'h [u8]>,
{
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| separate(line.as_bytes())).nth(index)
}

/// Returns the elements of a list that are not empty, last first. A quote toggles whether commas
/// separate, if `is_delimiter` holds for the text before it.
fn split_from_end(text: &[u8], is_delimiter: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    let all = std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let comma = (0..text.len()).rev().find(|at| {
            is_quoted ^= text[*at] == b'"' && is_delimiter(&text[..*at]);
            text[*at] == b',' && !is_quoted
        });
        rest = comma.map(|at| &text[..at]);
        Some(trim(comma.map_or(text, |at| &text[at + 1..])))
    });
    all.filter(|element| !element.is_empty())
}

/// Whether a character after this text is part of a quoted pair.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Trims optional whitespace: spaces and tabs.
fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// Returns the value of the element's `for` parameter, unless the element is malformed.
///
/// Accepts two things that proxies send although the grammar does not allow them: whitespace around
/// the semicolons, and addresses with a port or in brackets that are not quoted.
fn forwarded_for(element: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut rest = element;
    let mut found = None;
    loop {
        let name_length = rest.iter().take_while(|byte| is_token(**byte)).count();
        // A pair may be empty.
        if name_length > 0 {
            let (name, value) = (&rest[..name_length], rest[name_length..].strip_prefix(b"=")?);
            let (value, after) = match value.strip_prefix(b"\"") {
                Some(quoted) => quoted_string(quoted)?,
                None => unquoted(value)?,
            };
            // No parameter occurs twice.
            if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                return None;
            }
            rest = after;
        }
        rest = trim(rest);
        match rest {
            [] => return found,
            [b';', after @ ..] => rest = trim(after),
            _ => return None,
        }
    }
}

/// Splits off the contents of a quoted string, whose opening quote is stripped.
fn quoted_string(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut unescaped = Vec::new();
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' if unescaped.is_empty() => return Some((Cow::Borrowed(&text[..at]), &text[at + 1..])),
            b'"' => return Some((Cow::Owned(unescaped), &text[at + 1..])),
            b'\\' => {
                let pair = *text.get(at + 1)?;
                if unescaped.is_empty() {
                    unescaped.extend_from_slice(&text[..at]);
                }
                unescaped.push(pair);
                at += 2;
            }
            byte => {
                if !unescaped.is_empty() {
                    unescaped.push(*byte);
                }
                at += 1;
            }
        }
    }
}

/// Splits off a token, or an address that should have been quoted.
fn unquoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let length = text.iter().take_while(|byte| is_token(**byte) || matches!(byte, b':' | b'[' | b']')).count();
    (length > 0).then(|| (Cow::Borrowed(&text[..length]), &text[length..]))
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses a node: an address, perhaps with a port. `None` for `unknown` and obfuscated names. An
/// IPv6 address without brackets has no port.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(address.into());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(address.into());
    }
    let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    let address: Ipv4Addr = address.parse().ok()?;
    port.is_none_or(is_port).then_some(address.into())
}

/// A port, or an obfuscated one.
fn is_port(text: &str) -> bool {
    let is_obfuscated = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match text.strip_prefix('_') {
        Some(name) => is_obfuscated(name),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}
