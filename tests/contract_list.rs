//! Checks `docs/contract.md`: every item is listed once, in order, with a test, a reason or the
//! mark for open items, and every test that it names exists.

use std::{collections::HashMap, path::Path};

/// The letters of the contract, with the number of their items.
const ITEMS: [(char, usize); 7] = [('G', 36), ('B', 41), ('R', 42), ('T', 33), ('K', 35), ('L', 34), ('X', 10)];

struct Item {
    number: String,
    text: String,
}

/// Reads `path`, relative to the package.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The list items that start with a bold number.
fn items() -> Vec<Item> {
    let page = read("docs/contract.md").expect("docs/contract.md exists");
    let mut items: Vec<Item> = Vec::new();
    let mut in_item = false;
    for line in page.lines() {
        if let Some((number, text)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("** ")) {
            items.push(Item { number: number.to_owned(), text: text.to_owned() });
            in_item = true;
        } else if in_item && line.starts_with("  ") {
            let text = &mut items.last_mut().unwrap().text;
            *text = format!("{text} {}", line.trim());
        } else {
            in_item = false;
        }
    }
    items
}

/// The tests that an item names, as path and function.
fn tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once(": ").filter(|(path, _)| path.ends_with(".rs")))
}

/// Whether the source has a test function of this name, or a row of a macro that generates it
/// (`name, ...` or `name: ...`).
fn defines_test(source: &str, name: &str) -> bool {
    let mut attribute = false;
    source.lines().map(str::trim).any(|line| {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let found = match function {
            Some(function) => attribute && function.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')),
            None => line.strip_prefix(name).is_some_and(|rest| rest.starts_with([',', ':'])),
        };
        // Other attributes and comments may stand between the attribute and the function.
        attribute = match line.starts_with("#[") {
            true => attribute || line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
            false => attribute && line.starts_with("//"),
        };
        found
    })
}

#[test]
fn every_item_is_listed_once_and_in_order() {
    let listed: Vec<_> = items().into_iter().map(|item| item.number).collect();
    let expected = ITEMS.iter().flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")));
    for (at, expected) in expected.enumerate() {
        assert_eq!(listed.get(at), Some(&expected), "in position {at}");
    }
    assert_eq!(listed.len(), ITEMS.iter().map(|(_, count)| count).sum::<usize>(), "no item beyond the contract");
}

#[test]
fn every_item_names_a_test_or_a_reason_or_is_open() {
    for Item { number, text } in items() {
        let tested = tests(&text).next().is_some();
        let reason = text.split_once("Not applicable: ").map_or("", |(_, reason)| reason);
        let open = text.ends_with("**Open**");
        assert!(tested || open || reason.split(' ').count() > 3, "{number} names no test and no reason: {text}");
        assert!(!(tested && open), "{number} has a test and is open");
    }
}

#[test]
fn every_named_test_exists() {
    let mut sources = HashMap::new();
    let mut missing = Vec::new();
    for Item { number, text } in items() {
        for (path, name) in tests(&text) {
            let source = sources.entry(path.to_owned()).or_insert_with(|| read(path).unwrap_or_default());
            if !defines_test(source, name) {
                missing.push(format!("{number}: `{path}` has no test `{name}`"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
