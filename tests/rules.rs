//! Each rule of the protocol has a test that names it, by its number in front of the test's name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[test]
fn each_rule_of_the_protocol_is_named_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/frame/PROTOCOL.md")).unwrap();
    let rules: BTreeSet<u32> =
        text.lines().filter_map(|line| line.strip_prefix("- [M-")?.split_once(']')?.0.parse().ok()).collect();
    assert!(rules.len() > 80, "the specification is read: {}", rules.len());
    let mut named = BTreeSet::new();
    for file in ["src", "tests"].iter().flat_map(|folder| rust_files(&root.join(folder))) {
        let code = fs::read_to_string(file).unwrap();
        named.extend(code.split("fn ").skip(1).flat_map(numbers));
    }
    let unnamed: Vec<_> = rules.difference(&named).collect();
    assert!(unnamed.is_empty(), "no test names M-{unnamed:?}");
    let unknown: Vec<_> = named.difference(&rules).collect();
    assert!(unknown.is_empty(), "tests name rules that there are not: M-{unknown:?}");
}

/// The rules that a test's name begins with: 13 and 14 for `m13_m14_b39_a_count(…`.
fn numbers(name: &str) -> impl Iterator<Item = u32> {
    let parts = name.split(['(', '<']).next().unwrap_or_default().split('_');
    let is_number = |part: &&str| part.len() > 1 && part[1..].bytes().all(|byte| byte.is_ascii_digit());
    parts.take_while(is_number).filter_map(|part| part.strip_prefix('m')?.parse().ok())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}
