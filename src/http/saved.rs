//! A request that is saved for its retries.

use std::fmt;

use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use bytes::Bytes;

/// What [`HttpRepeat`](super::HttpRepeat) saves of a request, from which a retry makes it again.
///
/// The headers are copied as text into one allocation: nearly all requests are dropped without a
/// retry, and cloning a `HeaderMap` takes two allocations, and another one for each name and value
/// that was made at run time and has not been cloned before. The order of the headers and of the
/// values of each, and whether a value is sensitive, are preserved. The body and the extensions are
/// cloned.
pub struct SavedRequest<B> {
    pub(super) method: Method,
    uri: Uri,
    version: Version,
    headers: SavedHeaders,
    pub(super) extensions: Extensions,
    body: B,
    pub(super) is_idempotent: bool,
}

impl<B: Clone> SavedRequest<B> {
    pub(super) fn new(request: &Request<B>, is_idempotent: bool) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: SavedHeaders::new(request.headers()),
            extensions: request.extensions().clone(),
            body: request.body().clone(),
            is_idempotent,
        }
    }
}

impl<B> SavedRequest<B> {
    pub(super) fn restore(self) -> Request<B> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.restore();
        *request.extensions_mut() = self.extensions;
        request
    }
}

impl<B> fmt::Debug for SavedRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedRequest").field("method", &self.method).field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Headers in order.
///
/// ```text
/// for each: [length of the name: 2 | kind: 1 | length of the value: 1 | name | value]
/// ```
#[derive(Default)]
struct SavedHeaders {
    text: Vec<u8>,
    /// The values that are too long to be copied, in order.
    shared: Vec<HeaderValue>,
}

/// Longer values are shared.
const MAX_COPIED: usize = u8::MAX as usize;

const PREFIX: usize = 4;

const COPIED: u8 = 0;
const SENSITIVE: u8 = 1;
const SHARED: u8 = 2;

impl SavedHeaders {
    #[inline]
    fn new(headers: &HeaderMap) -> Self {
        if headers.is_empty() { Self::default() } else { Self::copy(headers) }
    }

    fn copy(headers: &HeaderMap) -> Self {
        let copied = |value: &HeaderValue| if value.len() <= MAX_COPIED { value.len() } else { 0 };
        let length = headers.iter().map(|(name, value)| PREFIX + name.as_str().len() + copied(value)).sum();
        let (mut text, mut shared) = (Vec::with_capacity(length), Vec::new());
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            // A name has less than 65,536 bytes.
            let [low, high] = (name.len() as u16).to_le_bytes();
            match u8::try_from(value.len()) {
                Ok(length) => {
                    let kind = if value.is_sensitive() { SENSITIVE } else { COPIED };
                    text.extend_from_slice(&[low, high, kind, length]);
                    text.extend_from_slice(name);
                    text.extend_from_slice(value.as_bytes());
                }
                Err(_) => {
                    text.extend_from_slice(&[low, high, SHARED, 0]);
                    text.extend_from_slice(name);
                    shared.push(value.clone());
                }
            }
        }
        Self { text, shared }
    }

    fn restore(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let (mut text, mut shared) = (Bytes::from(self.text), self.shared.into_iter());
        while !text.is_empty() {
            let prefix = text.split_to(PREFIX);
            let name = text.split_to(usize::from(u16::from_le_bytes([prefix[0], prefix[1]])));
            let name = HeaderName::from_bytes(&name).expect("it was a name");
            let value = if prefix[2] == SHARED {
                shared.next().expect("it was shared")
            } else {
                let value = text.split_to(usize::from(prefix[3]));
                let mut value = HeaderValue::from_maybe_shared(value).expect("it was a value");
                value.set_sensitive(prefix[2] == SENSITIVE);
                value
            };
            headers.append(name, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use ::http::header;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = HeaderValue> {
        let length = prop_oneof![8 => 0..20_usize, 2 => 250..260_usize, 1 => 1000..5000_usize];
        let byte = prop_oneof![Just(b'\t'), 32..=126_u8, 128..=255_u8];
        (length, byte, any::<bool>()).prop_map(|(length, byte, sensitive)| {
            let mut value = HeaderValue::from_bytes(&vec![byte; length]).unwrap();
            value.set_sensitive(sensitive);
            value
        })
    }

    /// Few names, so that many have several values: of standard names, custom ones, and long ones.
    fn name() -> impl Strategy<Value = HeaderName> {
        prop_oneof![
            Just(header::ACCEPT),
            Just(header::COOKIE),
            Just(HeaderName::from_static("x-static")),
            (0..4).prop_map(|number| HeaderName::try_from(format!("x-{number}")).unwrap()),
            Just(HeaderName::try_from("n".repeat(65_535)).unwrap()),
        ]
    }

    #[derive(Debug)]
    enum Op {
        Append(HeaderName, HeaderValue),
        Insert(HeaderName, HeaderValue),
        Remove(HeaderName),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (name(), value()).prop_map(|(name, value)| Op::Append(name, value)),
            2 => (name(), value()).prop_map(|(name, value)| Op::Insert(name, value)),
            1 => name().prop_map(Op::Remove),
        ]
    }

    fn contents(headers: &HeaderMap) -> Vec<(&str, &[u8], bool)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes(), value.is_sensitive())).collect()
    }

    proptest! {
        #[test]
        fn saved_headers_have_the_same_order_values_and_marks(ops in prop::collection::vec(op(), 0..30)) {
            let mut headers = HeaderMap::new();
            for op in ops {
                match op {
                    Op::Append(name, value) => { headers.append(name, value); }
                    Op::Insert(name, value) => { headers.insert(name, value); }
                    Op::Remove(name) => { headers.remove(name); }
                }
            }
            let restored = SavedHeaders::new(&headers).restore();
            prop_assert_eq!(contents(&restored), contents(&headers));
            prop_assert_eq!(&restored, &headers);
            let again = SavedHeaders::new(&restored).restore();
            prop_assert_eq!(contents(&again), contents(&headers));
        }
    }

    #[test]
    fn a_restored_request_equals_the_original() {
        #[derive(Clone, Debug, PartialEq)]
        struct Extension(u32);

        let uris = ["http://user@example.com:80/path?query", "/path", "*", "example.com:443", "https://example.com"];
        for uri in uris {
            let mut request = Request::builder()
                .method(Method::from_bytes(b"PURGE").unwrap())
                .uri(uri)
                .version(Version::HTTP_2)
                .header("a", "1")
                .extension(Extension(7))
                .body(Bytes::from_static(b"body"))
                .unwrap();
            let restored = SavedRequest::new(&request, true).restore();
            assert_eq!(restored.extensions().get(), Some(&Extension(7)));
            assert_eq!(restored.uri(), request.uri());
            request.extensions_mut().clear();
            let (restored, original) = (restored.into_parts(), request.into_parts());
            assert_eq!(restored.1, original.1);
            assert_eq!(
                (restored.0.method, restored.0.version, restored.0.headers),
                (original.0.method, original.0.version, original.0.headers)
            );
        }
    }
}
