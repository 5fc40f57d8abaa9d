//! Splits a passage into sentences and counts their words.

use super::prose::{Passage, Word};

/// The most words that a sentence may have.
const MAX_WORDS: usize = 25;
/// How many words of a reported sentence are printed.
const SHOWN_WORDS: usize = 12;
/// Words that may end with a dot within a sentence.
const ABBREVIATIONS: [&str; 8] = ["e.g.", "i.e.", "etc.", "vs.", "cf.", "no.", "approx.", "resp."];

/// One sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The line of its first word.
    pub line: usize,
    words: Vec<String>,
}

impl Sentence {
    fn new(words: &[Word]) -> Option<Self> {
        let line = words.first()?.line;
        Some(Self { line, words: words.iter().map(|word| word.text.clone()).collect() })
    }

    /// The number of its words, without punctuation and URLs.
    pub fn word_count(&self) -> usize {
        self.words.iter().filter(|word| counts(word)).count()
    }

    /// The problem, if the sentence has too many words.
    pub fn too_long(&self) -> Option<String> {
        let count = self.word_count();
        (count > MAX_WORDS).then(|| format!("{} ({count} words, at most {MAX_WORDS})", self.start()))
    }

    /// Its first words, for the report.
    pub fn start(&self) -> String {
        let shown = self.words.len().min(SHOWN_WORDS);
        let rest = if shown < self.words.len() { " …" } else { "" };
        format!("{}{rest}", self.words[..shown].join(" "))
    }

    /// Its words in lower case with single spaces. A word with a code span becomes `` ` ``.
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
