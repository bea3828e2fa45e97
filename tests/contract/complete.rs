//! The tables are complete.

use std::path::{Path, PathBuf};

/// How a layer is named in the tables where not by its type.
const AS: [(&str, &str); 5] = [
    ("KeyedRateLimitLayer", "keyed(ear)"),
    ("PerKeyLayer", "per_key(ear)"),
    ("FallbackLayer", "Fallback::"),
    ("ClientStack", "stack::client"),
    ("ServerStack", "stack::server"),
];

/// All sources but those of what HTTP knows, which is tested with HTTP.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let each = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("http") => Vec::new(),
        true => sources(&path),
        false => vec![path],
    };
    entries.flat_map(each).collect()
}

/// The rows of a table of `main.rs`.
fn rows(table: &str) -> Vec<&'static str> {
    let (_, rest) = include_str!("main.rs").split_once(&format!("\n{table}! {{\n")).unwrap();
    rest.split_once("\n}\n").unwrap().0.split_terminator(";\n").collect()
}

#[test]
fn no_layer_is_missing_in_any_of_its_modes() {
    let (all, saturated) = (rows("layers"), rows("saturated_layers"));
    let mut layers = 0;
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = std::fs::read_to_string(&path).unwrap();
        let found: Vec<_> =
            source.lines().filter(|line| line.starts_with("impl") && line.contains(" Layer<S> for ")).collect();
        assert_eq!(found.len(), source.matches(" Layer<S> for ").count(), "{} is written otherwise", path.display());
        for line in found {
            let name = line.split(" Layer<S> for ").nth(1).unwrap().split(['<', ' ']).next().unwrap();
            let made = AS.iter().find(|(layer, _)| *layer == name).map_or(name, |(_, made)| made);
            layers += 1;
            assert!(all.iter().any(|row| row.contains(made)), "{name} is not in the table");
            for mode in ["backpressure", "wait"] {
                if source.contains(&format!("pub fn {mode}(self)")) {
                    let has = |row: &&str| row.contains(made) && row.contains(&format!(".{mode}()"));
                    assert!(all.iter().any(&has), "{name} in mode {mode} is not in the table");
                    assert!(saturated.iter().any(&has), "{name} in mode {mode}, saturated, is not in the table");
                }
            }
        }
    }
    assert_eq!(layers, 12, "as many layers as there are; count them here, so that none hides from the search");
}
