//! The floors of the house: a file imports from its own folder or from lower floors, and what is pure stays pure.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders and files of `src`, by floor. A folder may name itself and what stands on a lower floor.
const FLOORS: &[&[&str]] = &[
    &["callback", "frame", "key", "metrics", "spans"],
    &["proto"],
    &["link"],
    &["error"],
    &["mux", "dialback"],
    &["tunnel"],
    &["connman"],
    &["server", "connector", "agent"],
    &["proxy"],
    &["guide"],
];

/// What stands beside others on its floor and may still be named there: the codec speaks of names.
const SIDEWAYS: &[(&str, &str)] =
    &[("callback", "metrics"), ("frame", "key"), ("metrics", "frame"), ("spans", "key"), ("spans", "metrics")];

/// Metrics are labelled by the kinds of errors and by close codes; a label is a name, not a dependency of the logic.
const UPWARD: &[(&str, &str)] = &[("metrics", "error")];

/// Files above floor 1 that are pure all the same.
const PURE: &[&str] = &[
    "dialback/control.rs",
    "dialback/path.rs",
    "dialback/pending.rs",
    "connman/gone.rs",
    "connman/policy.rs",
    "connman/registry.rs",
    "connman/registry/attach.rs",
    "connman/registry/gone.rs",
    "connman/registry/leave.rs",
    "connman/registry/values.rs",
    "connman/registry/wait.rs",
    "server/failures.rs",
    "server/route.rs",
    "connector/target.rs",
    "agent/backoff.rs",
    "agent/endpoint.rs",
    "agent/pace.rs",
    "agent/proxy_choice.rs",
    "proxy/head.rs",
];

/// What a pure file does not contain.
const IMPURE: &[&str] =
    &["tokio", "Instant::now", "SystemTime::now", "Waker", "async ", ".await", "std::thread", "rand::"];

#[test]
fn files_import_from_lower_floors_only() {
    let mut wrong = BTreeSet::new();
    for (name, text) in sources() {
        let Some(from) = place(&name) else { continue };
        for to in imported(&text) {
            if to.starts_with(char::is_uppercase) {
                wrong.insert(format!("{name}: names {to} by the root, not by the module that defines it"));
                continue;
            }
            let allowed = from == to || floor(&to) < floor(&from) || SIDEWAYS.contains(&(&from, &to));
            if !allowed && !UPWARD.contains(&(from.as_str(), to.as_str())) {
                wrong.insert(format!("{name}: {from} (floor {}) names {to} (floor {})", floor(&from), floor(&to)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_files_have_no_io_no_clock_and_no_tasks() {
    let mut wrong = BTreeSet::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (name, text) in sources() {
        let pure = PURE.iter().find(|pure| **pure == name);
        seen.extend(pure);
        if pure.is_some() || ["frame/", "proto/"].iter().any(|folder| name.starts_with(folder)) {
            let code = code(&text);
            let found = IMPURE.iter().filter(|word| code.contains(**word));
            wrong.extend(found.map(|word| format!("{name}: {word}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen.len(), PURE.len(), "a pure file is gone or renamed: {seen:?}");
}

#[test]
fn b89_no_file_asks_what_time_it_is_but_for_a_date() {
    // A clock that jumps changes nothing where nobody looks at it, but for a Retry-After that is a date.
    let due = ["agent/connect.rs", "agent/refusal.rs"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(name, _)| !due.contains(&name.as_str()))
        .filter(|(_, text)| ["SystemTime", "UNIX_EPOCH", "chrono"].iter().any(|word| code(text).contains(word)))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn each_file_says_first_what_it_answers() {
    let without: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(without.is_empty(), "{without:#?}");
}

/// Every file of `src` but `lib.rs`, by its path below it, with its tests cut off.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<_> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a source file");
            (name, text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned())
        })
        .filter(|(name, _)| name != "lib.rs" && !name.ends_with("tests.rs") && !name.contains("/tests/"))
        .collect();
    assert!(sources.len() > 20, "only {} files were read", sources.len());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// The folder, or the file at the top, that a file belongs to.
fn place(name: &str) -> Option<String> {
    let first = name.split('/').next()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

fn floor(place: &str) -> usize {
    FLOORS.iter().position(|names| names.contains(&place)).unwrap_or_else(|| panic!("{place} stands on no floor"))
}

/// The modules that follow a `crate::` outside of comments, in plain and in grouped imports.
fn imported(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && depth == 0 && c.is_alphabetic() => {
                        names.insert(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(word(rest));
        }
    }
    names.remove("");
    names
}

/// A text without its comments, and so without the examples in them.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
