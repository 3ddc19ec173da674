//! The guides speak of what there is: each word `revdial.…` in them is a span, or one of the protocol's.

use std::{collections::BTreeSet, fs, path::Path};

/// The subprotocol, and the parameters of a pick-up.
const OF_THE_PROTOCOL: [&str; 3] = ["revdial.v1", "revdial.dialer", "revdial.req"];

/// The words of a text that begin with `revdial.`, whole.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_' && c != '/')
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.starts_with("revdial.") && !word.contains('/'))
}

/// The texts of all files below this folder whose names end so.
fn texts(folder: &Path, extension: &str) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            texts.extend(self::texts(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            texts.push((path.display().to_string(), fs::read_to_string(&path).expect("a text")));
        }
    }
    texts
}

#[test]
fn t2_each_span_that_the_guides_name_is_one_of_the_crates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = texts(&root.join("src"), "rs");
    let lines = sources.iter().flat_map(|(_, text)| text.lines()).filter(|line| line.contains("_span!("));
    let spans: BTreeSet<&str> = lines.flat_map(words).collect();
    assert_eq!(Vec::from_iter(&spans), [&"revdial.handshake", &"revdial.link", &"revdial.session", &"revdial.stream"]);

    let mut named = BTreeSet::new();
    let readme = (String::from("README.md"), fs::read_to_string(root.join("README.md")).expect("a text"));
    for (name, text) in texts(&root.join("src/guide"), "md").iter().chain([&readme]) {
        let unknown: Vec<_> =
            words(text).filter(|word| !spans.contains(word) && !OF_THE_PROTOCOL.contains(word)).collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}");
        named.extend(words(text).map(str::to_owned));
    }
    assert!(spans.iter().all(|span| named.contains(*span)), "all of them are told of: {named:?}");
}
