use super::*;
use crate::lint_language::prose::Word;
use crate::lint_language::sentence;

fn problems(list: &str, text: &str) -> Result<Vec<String>> {
    let passage = text.split(' ').map(|word| Word { line: 1, text: word.to_owned() }).collect();
    let phrases = BannedPhrases::parse(list)?;
    Ok(sentence::split(&passage).iter().flat_map(|sentence| phrases.problems(sentence)).collect())
}

#[test]
fn a_phrase_is_found_in_any_case_and_before_punctuation() -> Result<()> {
    let found = problems("for want of => because there is no", "It fails. For want of, say, memory.")?;
    assert_eq!(found, ["For want of, say, memory. ('for want of': because there is no)"]);
    Ok(())
}

#[test]
fn part_of_a_word_and_code_are_not_found() -> Result<()> {
    assert!(problems("mend => repair", "We recommend amending `mend` and_mend.")?.is_empty());
    Ok(())
}

#[test]
fn comments_and_empty_lines_are_skipped_and_a_line_without_an_arrow_is_refused() {
    assert!(BannedPhrases::parse("# a comment\n\nanew => again").is_ok_and(|phrases| phrases.0.len() == 1));
    assert!(BannedPhrases::parse("anew").is_err());
}
