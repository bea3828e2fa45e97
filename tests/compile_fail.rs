//! Compiler errors for common mistakes name the missing trait and the fix.

/// The compiler whose messages are pinned; other versions word them differently.
const PINNED: &str = "rustc 1.95.";

#[test]
fn compile_errors_name_the_missing_trait() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("rustc runs").stdout;
    if !version.starts_with(PINNED.as_bytes()) {
        eprintln!("skipped: the messages are pinned for {PINNED}x");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
