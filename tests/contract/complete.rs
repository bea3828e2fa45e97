//! Checks that the tables are complete.

use std::path::{Path, PathBuf};

/// Layers whose rows do not name the type, with the text that identifies them.
const TABLE_NAMES: [(&str, &str); 5] = [
    ("KeyedRateLimitLayer", "keyed(recorder)"),
    ("PerKeyLayer", "per_key(recorder)"),
    ("FallbackLayer", "Fallback::"),
    ("ClientStack", "stack::client"),
    ("ServerStack", "stack::server"),
];

/// All sources except those of the `http` modules, which `tests/http` covers.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let each = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("http") => Vec::new(),
        true => sources(&path),
        false => vec![path],
    };
    entries.flat_map(each).collect()
}

/// The rows of a table in `main.rs`.
fn rows(table: &str) -> Vec<&'static str> {
    let (_, rest) = include_str!("main.rs").split_once(&format!("\n{table}! {{\n")).unwrap();
    rest.split_once("\n}\n").unwrap().0.split_terminator(";\n").collect()
}

#[test]
fn every_layer_and_mode_is_in_the_tables() {
    let (all, saturated) = (rows("layers"), rows("saturated_layers"));
    let mut layers = 0;
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = std::fs::read_to_string(&path).unwrap();
        let found: Vec<_> =
            source.lines().filter(|line| line.starts_with("impl") && line.contains(" Layer<S> for ")).collect();
        assert_eq!(
            found.len(),
            source.matches(" Layer<S> for ").count(),
            "{} declares a layer in a form that this test does not find",
            path.display()
        );
        for line in found {
            let name = line.split(" Layer<S> for ").nth(1).unwrap().split(['<', ' ']).next().unwrap();
            let table_name =
                TABLE_NAMES.iter().find(|(layer, _)| *layer == name).map_or(name, |(_, table_name)| table_name);
            layers += 1;
            assert!(all.iter().any(|row| row.contains(table_name)), "{name} is not in the table");
            for mode in ["backpressure", "wait"] {
                if source.contains(&format!("pub fn {mode}(self)")) {
                    let has = |row: &&str| row.contains(table_name) && row.contains(&format!(".{mode}()"));
                    assert!(all.iter().any(&has), "{name} in mode {mode} is not in the table");
                    assert!(saturated.iter().any(&has), "{name} in mode {mode}, saturated, is not in the table");
                }
            }
        }
    }
    assert_eq!(layers, 12, "the number of layers, pinned so that none escapes the search");
}
