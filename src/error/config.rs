use std::{borrow::Cow, fmt};

use crate::name::Name;

/// An invalid configuration: of which instance, which field, and why.
///
/// Every builder's `build()` returns it instead of panicking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{field}`{of}: {reason}", of = Of(.name.as_ref()))]
pub struct ConfigError {
    name: Option<Name>,
    field: &'static str,
    reason: Cow<'static, str>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { name: None, field, reason: reason.into() }
    }

    /// Adds the name of the instance, unless the error has one: a part's name is more precise than
    /// that of the stack around it.
    pub(crate) fn of(mut self, name: &Name) -> Self {
        self.name.get_or_insert_with(|| name.clone());
        self
    }

    /// Returns the name of the instance that was to be built or changed; `None` for a setting that
    /// belongs to no instance, such as a retry budget's.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
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

/// Displays the instance that a setting belongs to, if it has a name.
struct Of<'a>(Option<&'a Name>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, " of `{name}`"))
    }
}
