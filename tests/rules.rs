//! Each rule of the protocol has a test that names it, by its number in front of the test's name.

#[path = "support/named.rs"]
mod named;

use std::collections::BTreeSet;

#[test]
fn each_rule_of_the_protocol_is_named_by_a_test() {
    let text = named::text("src/frame/PROTOCOL.md");
    let rules: BTreeSet<u32> =
        text.lines().filter_map(|line| line.strip_prefix("- [M-")?.split_once(']')?.0.parse().ok()).collect();
    assert!(rules.len() > 80, "the specification is read: {}", rules.len());
    let functions = named::functions();
    let named: BTreeSet<u32> = functions.iter().flat_map(|name| numbers(name)).collect();
    let unnamed: Vec<_> = rules.difference(&named).collect();
    assert!(unnamed.is_empty(), "no test names M-{unnamed:?}");
    let unknown: Vec<_> = named.difference(&rules).collect();
    assert!(unknown.is_empty(), "tests name rules that there are not: M-{unknown:?}");
}

/// The rules that a test's name begins with: 13 and 14 for `m13_m14_b39_a_count`.
fn numbers(name: &str) -> impl Iterator<Item = u32> {
    let all = name.split('_').map_while(named::number);
    all.filter(|(kind, _)| *kind == 'm').map(|(_, number)| number)
}
