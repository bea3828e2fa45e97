//! How long a response's body will be.

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header, response::Parts};
use http_body::Body;

/// Whether a response to this method with this status has no body on the wire, whatever its headers
/// say and its body holds (RFC 9110, section 6.4.1).
///
/// A successful CONNECT and a 101 turn the connection into a tunnel, which is no body either.
pub(in crate::http) fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || (*method == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Returns the number of bytes after which a server stops reading the body: the `Content-Length`,
/// or the exact length that the body itself announces.
pub(super) fn announced_length(head: &Parts, body: &impl Body) -> Option<u64> {
    content_length(&head.headers).or_else(|| body.size_hint().exact())
}

/// Returns the `Content-Length`, if it is valid and applies. Repeated values must agree.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter().flat_map(list_members);
    let first = values.next()??;
    values.all(|value| value == Some(first)).then_some(first)
}

fn list_members(value: &HeaderValue) -> impl Iterator<Item = Option<u64>> {
    value.as_bytes().split(|byte| *byte == b',').map(|member| {
        let digits = member.trim_ascii();
        // `parse` would also accept a sign.
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if is_number { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(values: &[&'static str]) -> Option<u64> {
        let lines = values.iter().map(|value| (header::CONTENT_LENGTH, HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        headers.extend(lines.map(|(name, value)| (Some(name), value)));
        content_length(&headers)
    }

    #[test]
    fn a_content_length_counts_if_it_is_one_valid_number() {
        assert_eq!(length(&["5"]), Some(5));
        assert_eq!(length(&[" 0 "]), Some(0));
        assert_eq!(length(&["5, 5"]), Some(5));
        assert_eq!(length(&["18446744073709551615"]), Some(u64::MAX));
        for invalid in ["", "+5", "-5", "5;", "0x5", "5,6", "5,", "18446744073709551616"] {
            assert_eq!(length(&[invalid]), None, "{invalid:?}");
        }
        let mut chunked = HeaderMap::new();
        chunked.insert(header::CONTENT_LENGTH, 5.into());
        chunked.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert_eq!(content_length(&chunked), None);
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_announce() {
        let cases = [
            (Method::HEAD, 200, true),
            (Method::HEAD, 503, true),
            (Method::GET, 200, false),
            (Method::GET, 204, true),
            (Method::GET, 304, true),
            (Method::GET, 101, true),
            (Method::GET, 205, false),
            (Method::CONNECT, 200, true),
            (Method::CONNECT, 503, false),
        ];
        for (method, status, expected) in cases {
            assert_eq!(has_no_body(&method, StatusCode::from_u16(status).unwrap()), expected, "{method} {status}");
        }
    }
}
