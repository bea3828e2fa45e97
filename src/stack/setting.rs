/// The setting of a part that has a default.
#[derive(Clone, Debug, Default)]
pub(super) enum Setting<T> {
    #[default]
    Default,
    Custom(T),
    Disabled,
}

impl<T> Setting<T> {
    /// Returns the part, or `None` if it is disabled.
    pub(super) fn resolve<E>(self, default: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
        match self {
            Self::Default => default().map(Some),
            Self::Custom(part) => Ok(Some(part)),
            Self::Disabled => Ok(None),
        }
    }
}
