//! The names of the tests of this repository, as its files have them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What stands behind each `fn ` in the folders of code: a name, and the rest of it.
pub(crate) fn functions() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests"].iter().flat_map(|folder| rust_files(&root.join(folder)));
    let code = files.map(|file| fs::read_to_string(file).unwrap());
    code.flat_map(|code| code.split("fn ").skip(1).map(name).collect::<Vec<_>>()).collect()
}

fn name(code: &str) -> String {
    code.split(['(', '<']).next().unwrap_or_default().to_owned()
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
