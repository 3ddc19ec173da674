//! The names of the tests of this repository, as its files have them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The names of the tests in the folders of code.
pub(crate) fn functions() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].iter().flat_map(|folder| rust_files(&root.join(folder)));
    files.flat_map(|file| tests(&fs::read_to_string(file).unwrap())).collect()
}

/// The names behind `fn ` that an attribute above makes a test.
fn tests(code: &str) -> Vec<String> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in code.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            names.push(name.split(['(', '<']).next().unwrap_or_default().to_owned());
            is_test = false;
        }
    }
    names
}

/// A text of this repository.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A letter and a number, as `b12`.
pub(crate) fn number(text: &str) -> Option<(char, u32)> {
    let kind = text.chars().next().filter(char::is_ascii_lowercase)?;
    let number = text.get(1..).filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((kind, number.parse().ok()?))
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
