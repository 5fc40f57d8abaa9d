use super::*;

fn passage(text: &str) -> Passage {
    text.split(' ').map(|word| Word { line: 1, text: word.to_owned() }).collect()
}

fn counts_of(text: &str) -> Vec<usize> {
    split(&passage(text)).iter().map(Sentence::word_count).collect()
}

#[test]
fn a_dot_a_question_mark_and_an_exclamation_mark_end_a_sentence() {
    assert_eq!(counts_of("One two. Three? Four five six! Seven"), [2, 1, 3, 1]);
}

#[test]
fn closing_brackets_and_quotes_belong_to_the_sentence_they_close() {
    assert_eq!(counts_of("(One two.) Three \"four.\" Five"), [2, 2, 1]);
}

#[test]
fn a_semicolon_a_colon_and_an_abbreviation_end_nothing() {
    assert_eq!(counts_of("one; two: three (e.g. four) etc. five ... six"), [8]);
}

#[test]
fn punctuation_and_addresses_of_pages_are_no_words() {
    assert_eq!(counts_of("see https://example.com/a & b – c"), [3]);
}

#[test]
fn a_sentence_of_25_words_passes_and_one_of_26_does_not() {
    let words = ["word"; 26];
    assert_eq!(split(&passage(&words[..25].join(" ")))[0].too_long(), None);
    let problem = split(&passage(&words.join(" ")))[0].too_long();
    assert_eq!(problem, Some(format!("{} … (26 words, at most 25)", words[..12].join(" "))));
}
