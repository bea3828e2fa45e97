use std::{
    fmt,
    task::{Context, Poll},
};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use tower_layer::Layer;
use tower_service::Service;

use super::{RequestHead, repeat::is_idempotent_method};

/// The header by which a server recognizes a request that was sent twice.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns whether the headers have no key, or only an empty one.
fn lacks_idempotency_key(headers: &HeaderMap) -> bool {
    // Several keys are an error of the caller's, which a new key would hide.
    !has_idempotency_key(headers) && headers.get_all(IDEMPOTENCY_KEY).iter().nth(1).is_none()
}

/// Returns whether a server can recognize a repetition of a request with these headers: they have
/// one key, which is not empty. A key in quotes is a structured-field string (RFC 9651).
pub(super) fn has_idempotency_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return false };
    let key = key.as_bytes().trim_ascii();
    match key.strip_prefix(b"\"") {
        Some(quoted) => !is_empty_string(quoted),
        None => !key.is_empty(),
    }
}

/// Whether a quoted key has no character but spaces, or does not end. Its opening quote is
/// stripped.
fn is_empty_string(quoted: &[u8]) -> bool {
    let mut is_empty = true;
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return is_empty,
            b'\\' => is_empty &= bytes.next().is_none(),
            byte => is_empty &= *byte == b' ',
        }
    }
    true
}

/// Adds a fresh `Idempotency-Key` to requests that cannot be retried safely without one: those
/// whose method is not idempotent and that have no key yet. An empty key is replaced.
///
/// Place it outside the retry, so that all attempts send the same key. The server must support the
/// header, which is that of draft-ietf-httpapi-idempotency-key-header and was made common by
/// payment services. The key is a random UUID, bare as those services expect it;
/// [`quoted`](Self::quoted) writes it as the draft does.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{http::{HttpClassifier, HttpRepeat, IdempotencyKeyLayer}, retry::Retry};
///
/// let retry = Retry::attempts("payments", 3)?;
/// let layers = ServiceBuilder::new()
///     .layer(IdempotencyKeyLayer::new())
///     .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()));
/// # let _ = layers;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IdempotencyKeyLayer {
    quoted: bool,
}

impl IdempotencyKeyLayer {
    /// Adds keys without quotes.
    pub const fn new() -> Self {
        Self { quoted: false }
    }

    /// Puts the key in quotes, which makes it a structured-field string as in the draft.
    pub const fn quoted(mut self) -> Self {
        self.quoted = true;
        self
    }
}

impl<S> Layer<S> for IdempotencyKeyLayer {
    type Service = IdempotencyKey<S>;

    fn layer(&self, inner: S) -> IdempotencyKey<S> {
        IdempotencyKey { inner, layer: *self }
    }
}

/// Service made by [`IdempotencyKeyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey<S> {
    inner: S,
    layer: IdempotencyKeyLayer,
}

service_access!(IdempotencyKey);

impl<S, Req> Service<Req> for IdempotencyKey<S>
where
    S: Service<Req>,
    Req: RequestHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> S::Future {
        if !is_idempotent_method(request.method()) && lacks_idempotency_key(request.headers()) {
            let key = Uuid(rand::random());
            let text = if self.layer.quoted { format!("\"{key}\"") } else { key.to_string() };
            // It never fails: the text has only digits, letters, dashes and quotes.
            if let Ok(value) = HeaderValue::try_from(text) {
                request.headers_mut().insert(IDEMPOTENCY_KEY, value);
            }
        }
        self.inner.call(request)
    }
}

/// Displays random bits as a UUID of version 4.
struct Uuid(u128);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let part = |shift: u32, digits: u32| (bits >> shift) & ((1 << (4 * digits)) - 1);
        let (a, b, c, d, e) = (part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}
