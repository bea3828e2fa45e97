//! The name of an instance.

use std::{fmt, sync::Arc};

/// The name of one instance of a pattern, as it appears in rejections, events, logs and metrics.
///
/// Made from a `&'static str`, it costs nothing to clone. Made from a `String` (a host, a tenant),
/// it is reference counted, so that it is freed with the last instance that bears it.
///
/// ```
/// use tower_rampart::Name;
///
/// assert_eq!(Name::from("payments").as_str(), "payments");
/// assert_eq!(Name::from(format!("host-{}", 7)).to_string(), "host-7");
/// ```
#[derive(Clone)]
pub struct Name(Repr);

// Two words, which keeps `Rejection` small: the thin `Arc<String>` uses the null niche of the
// `&'static str`.
#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Counted(Arc<String>),
}

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(name) => name,
            Repr::Counted(name) => name,
        }
    }

    /// Returns the name if it is static, so that cloning touches no shared counter.
    pub(crate) fn as_static(&self) -> Option<&'static str> {
        match self.0 {
            Repr::Static(name) => Some(name),
            Repr::Counted(_) => None,
        }
    }
}

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self(Repr::Static(name))
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(Repr::Counted(Arc::new(name)))
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
