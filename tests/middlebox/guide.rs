//! The proxies' configurations, as they stand in the guide.

/// What users read.
const GUIDE: &str = include_str!("../../src/guide/middleboxes.md");

/// The guide's block of this language, in which each of these lines stands once and is replaced.
pub(crate) fn configuration<const N: usize>(language: &str, changes: [(&str, &str); N]) -> String {
    let fence = format!("```{language}\n");
    let (_, block) = GUIDE.split_once(&fence).unwrap_or_else(|| panic!("the guide has no {language}"));
    let (block, _) = block.split_once("```").expect("an end of the block");
    changes.into_iter().fold(block.to_owned(), |block, (line, change)| {
        assert_eq!(block.matches(line).count(), 1, "{line:?} stands once in {block}");
        block.replace(line, change)
    })
}
