//! The phrases that have a plainer form. They come from a file, so that a new phrase needs no new code.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::sentence::Sentence;

/// The banned phrases in lower case, each with its plainer form.
pub struct BannedPhrases(Vec<(String, String)>);

impl BannedPhrases {
    /// Reads the list of banned phrases: one `phrase => what to write` per line. `#` begins a comment.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} can't be parsed", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut phrases = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((phrase, instead)) = line.split_once("=>") else { bail!("the line '{line}' has no '=>'") };
            phrases.push((phrase.trim().to_lowercase(), instead.trim().to_owned()));
        }
        Ok(Self(phrases))
    }

    /// Returns one problem for each banned phrase that the sentence contains.
    pub fn problems(&self, sentence: &Sentence) -> Vec<String> {
        let plain = sentence.plain();
        let found = self.0.iter().filter(|(phrase, _)| has_words(&plain, phrase));
        found.map(|(phrase, instead)| format!("{} ('{phrase}': {instead})", sentence.start())).collect()
    }
}

/// Whether `text` contains `phrase` as whole words.
fn has_words(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + phrase.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '-'
}

#[cfg(test)]
mod tests;
