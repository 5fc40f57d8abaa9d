//! Splits a passage into sentences and counts their words.

use super::prose::{Passage, Word};

/// The maximum number of words in a sentence.
const MAX_WORDS: usize = 25;
/// How many words of a sentence the report prints.
const SHOWN_WORDS: usize = 12;
/// Abbreviations that end with a dot but do not end a sentence.
const ABBREVIATIONS: [&str; 8] = ["e.g.", "i.e.", "etc.", "vs.", "cf.", "no.", "approx.", "resp."];

/// One sentence of a passage.
#[derive(Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The line number of the sentence's first word.
    pub line: usize,
    words: Vec<String>,
}

impl Sentence {
    fn new(words: &[Word]) -> Option<Self> {
        let line = words.first()?.line;
        Some(Self { line, words: words.iter().map(|word| word.text.clone()).collect() })
    }

    /// The number of words in the sentence. Punctuation and URLs do not count.
    pub fn word_count(&self) -> usize {
        self.words.iter().filter(|word| counts(word)).count()
    }

    /// Returns a problem if the sentence has too many words.
    pub fn too_long(&self) -> Option<String> {
        let count = self.word_count();
        (count > MAX_WORDS).then(|| format!("{} ({count} words, at most {MAX_WORDS})", self.start()))
    }

    /// The first words of the sentence, for the report.
    pub fn start(&self) -> String {
        let shown = self.words.len().min(SHOWN_WORDS);
        let rest = if shown < self.words.len() { " …" } else { "" };
        format!("{}{rest}", self.words[..shown].join(" "))
    }

    /// The words of the sentence in lower case with single spaces. A word with a code span becomes `` ` ``.
    pub fn plain(&self) -> String {
        let words = self.words.iter().map(|word| if word.contains('`') { "`".to_owned() } else { word.to_lowercase() });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Splits a passage into sentences.
pub fn split(passage: &Passage) -> Vec<Sentence> {
    passage.split_inclusive(|word| ends_sentence(&word.text)).filter_map(Sentence::new).collect()
}

fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_start_matches(['(', '"', '“']);
    if ABBREVIATIONS.contains(&bare.to_lowercase().as_str()) || bare.ends_with("..") {
        return false;
    }
    bare.trim_end_matches([')', '"', '”', '\'']).ends_with(['.', '?', '!'])
}

fn counts(word: &str) -> bool {
    !word.contains("://") && word.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests;
