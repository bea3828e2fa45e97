use std::borrow::Cow;

/// An invalid configuration: which field, and why.
///
/// Every builder's `build()` returns it instead of panicking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{field}`: {reason}")]
pub struct ConfigError {
    field: &'static str,
    reason: Cow<'static, str>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { field, reason: reason.into() }
    }

    /// Returns the invalid field, by the name of the builder method that sets it.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// Returns why the value is invalid, and which values are valid.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
