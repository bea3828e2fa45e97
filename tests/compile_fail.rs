//! What does not compile says why.

/// The compiler whose words are pinned. Others say the same in other words.
const PINNED: &str = "rustc 1.95.";

#[test]
fn mistakes_are_readable() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("there is a compiler").stdout;
    if !version.starts_with(PINNED.as_bytes()) {
        eprintln!("not compared: the messages are those of {PINNED}x");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
