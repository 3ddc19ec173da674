//! Each row of what a user may expect has a test that names it, by its number in front of the test's name.

#[path = "support/named.rs"]
mod named;

use std::collections::BTreeSet;

use named::number as row;

/// A letter and a number.
type Row = (char, u32);

#[test]
fn each_row_is_named_by_a_test() {
    let text = named::text("tests/rows.md");
    let rows: BTreeSet<Row> = text
        .lines()
        .filter_map(|line| row(line.strip_prefix("| ")?.split(' ').next()?.to_lowercase().as_str()))
        .collect();
    let kinds: BTreeSet<char> = rows.iter().map(|(kind, _)| *kind).collect();
    assert!((1..=100).all(|number| rows.contains(&('b', number))) && kinds.len() > 8, "all are read: {rows:?}");

    let named: BTreeSet<Row> = named::functions().iter().flat_map(|name| numbers(name)).collect();
    let unnamed: Vec<_> = rows.difference(&named).collect();
    assert!(unnamed.is_empty(), "no test names {unnamed:?}");
    let unknown: Vec<_> = named.difference(&rows).filter(|(kind, _)| kinds.contains(kind)).collect();
    assert!(unknown.is_empty(), "tests name rows that there are not: {unknown:?}");
}

/// The rows that a test's name begins with: 1, 2, 3 and 11 for `b1_to_b3_and_b11_refusals`.
fn numbers(name: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut parts = name.split('_').peekable();
    let mut to = false;
    while let Some(part) = parts.next() {
        match (row(part), rows.last().copied()) {
            (Some((kind, end)), Some((_, start))) if to => rows.extend((start + 1..=end).map(|number| (kind, number))),
            (Some(row), _) => rows.push(row),
            (None, Some(_))
                if ["to", "and"].contains(&part) && parts.peek().is_some_and(|next| row(next).is_some()) =>
            {
                to = part == "to";
                continue;
            }
            (None, _) => break,
        }
        to = false;
    }
    rows
}

#[test]
fn names_are_read_with_their_ranges() {
    let read = |name| numbers(name).into_iter().map(|(kind, number)| format!("{kind}{number}")).collect::<Vec<_>>();
    assert_eq!(read("b1_to_b3_and_b11_refusals_say"), ["b1", "b2", "b3", "b11"]);
    assert_eq!(read("m13_b08_to_be_sure"), ["m13", "b8"]);
    assert_eq!(read("a_key_b3"), [""; 0]);
}
