//! The name of an instance.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    sync::Arc,
};

/// The name of one instance of a pattern, as it appears in rejections, events, logs and metrics.
///
/// Made from a `&'static str`, it costs nothing to clone. Made from a `String` (a host, a tenant),
/// it is reference counted, so that it is freed with the last instance that bears it.
///
/// Names may come from outside: a host, a header. So `Display` and `Debug` show a name on one line,
/// in printable characters, and in at most 256 bytes. Control and format characters (line breaks,
/// ANSI escapes, bidirectional overrides), unusual spaces, combining marks, backslashes and
/// backticks are shown as escapes, such as `\n` and `\u{202e}`. A longer name is cut and ends with
/// `...`. All text that this crate writes, such as rejections, logs and metrics, shows names this
/// way. [`as_str`](Self::as_str) returns the name as it is.
///
/// ```
/// use tower_rampart::Name;
///
/// assert_eq!(Name::from("payments").as_str(), "payments");
/// assert_eq!(Name::from(format!("host-{}", 7)).to_string(), "host-7");
/// assert_eq!(Name::from("a\nWARN forged").to_string(), r"a\nWARN forged");
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
    /// Returns the name as it is. It may hold any characters, and be of any length.
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

impl Name {
    /// The longest name that is shown, in bytes.
    const MAX_SHOWN: usize = 256;

    /// The name of a key's handle: `<prefix>.<key>`, cut to 256 bytes.
    pub(crate) fn for_key(prefix: &Self, key: &impl fmt::Display) -> Self {
        let mut name = BoundedText(String::new());
        // An error means that the name is cut.
        let _ = write!(name, "{}.{key}", prefix.as_str());
        Self::from(name.0)
    }

    /// Returns the name with a suffix.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        Self::from(format!("{}.{suffix}", self.as_str()))
    }

    /// Returns the name as it is shown. Allocates only for a name that has to be escaped or cut.
    pub(crate) fn printable(&self) -> Cow<'_, str> {
        let name = self.as_str();
        let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'`');
        if name.len() <= Self::MAX_SHOWN && name.bytes().all(is_plain) {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(escape(name, Self::MAX_SHOWN))
        }
    }
}

/// Escapes all that is not printable, and cuts the result to `max` bytes.
#[cold]
fn escape(text: &str, max: usize) -> String {
    const ELLIPSIS: &str = "...";
    let (mut shown, mut cut) = (String::new(), 0);
    for char in text.chars() {
        match char {
            '"' | '\'' => shown.push(char),
            '`' => shown.extend(char.escape_unicode()),
            _ => shown.extend(char.escape_debug()),
        }
        if shown.len() > max {
            shown.truncate(cut);
            shown.push_str(ELLIPSIS);
            break;
        }
        if shown.len() <= max - ELLIPSIS.len() {
            cut = shown.len();
        }
    }
    shown
}

/// Text of at most 256 bytes. Writing more than that fails.
struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = Name::MAX_SHOWN - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        let boundary = (0..=left).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.push_str(&text[..boundary]);
        Err(fmt::Error)
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
        f.pad(&self.printable())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.printable().replace('"', "\\\""))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(name: impl Into<String>) -> String {
        Name::from(name.into()).to_string()
    }

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        for name in ["payments", "upstream.b.example:443", "it's \"quoted\"", "käse 奶酪", ""] {
            assert_eq!(shown(name), name);
        }
        assert_eq!(format!("{:>5}|{:?}", Name::from("ab"), Name::from("a\"b")), "   ab|\"a\\\"b\"");
    }

    #[test]
    fn characters_that_could_forge_or_hide_text_are_escaped() {
        let controls = ('\0'..='\x1f').chain('\x7f'..='\u{9f}');
        let breaks = ['\u{2028}', '\u{2029}', '\u{a0}', '\u{3000}'];
        let bidi = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{61c}']);
        let invisible = ('\u{200b}'..='\u{200f}').chain(['\u{feff}', '\u{ad}', '\u{e0041}', '\u{fff9}']);
        let other = ['\u{301}', '\u{e000}', '`', '\\'];
        for char in controls.chain(breaks).chain(bidi).chain(invisible).chain(other) {
            for text in [shown(format!("a{char}b")), format!("{:?}", Name::from(format!("a{char}b")))] {
                assert!(text.contains("a\\"), "{char:?} is shown as {text:?}");
                assert!(text.chars().all(|char| matches!(char, ' '..='~')), "{text:?}");
            }
        }
        assert_eq!(shown("x\n2026-01-01 WARN \x1b[31madmin"), r"x\n2026-01-01 WARN \u{1b}[31madmin");
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shown("a".repeat(256)), "a".repeat(256));
        assert_eq!(shown("a".repeat(257)), "a".repeat(253) + "...");
        assert_eq!(shown("é".repeat(1_000_000)), "é".repeat(126) + "...");
        assert_eq!(
            Name::for_key(&Name::from("up"), &"é".repeat(1_000_000)).as_str(),
            "up.".to_owned() + &"é".repeat(126)
        );
        assert_eq!(Name::for_key(&Name::from("up\\"), &"k\n").as_str(), "up\\.k\n", "escaped when it is shown, once");
    }

    proptest! {
        #[test]
        fn a_name_is_one_bounded_printable_line(name in any::<String>(), times in 1_usize..100) {
            let text = shown(name.repeat(times));
            prop_assert!(text.len() <= 256);
            prop_assert!(!text.contains(|char: char| char.is_control() || char == '`'));
            let reorders = |char| matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            prop_assert!(!text.contains(reorders));
            let debug = format!("{:?}", Name::from(name.repeat(times)));
            prop_assert!(debug.len() <= 2 * 256 + 2);
        }
    }
}
