//! Limits the length of texts for people: notes of events and messages of conditions.

/// The maximum length of an event's note, in bytes. The API server refuses an event with a longer note.
pub const MAX_NOTE_BYTES: usize = 1024;

/// Returns a text of at most `longest` bytes. A longer text is cut between two characters and ends with `…`.
#[must_use]
pub fn shortened(text: &str, longest: usize) -> String {
    const CUT: &str = "…";
    if text.len() <= longest {
        return text.to_owned();
    }
    let most = longest.saturating_sub(CUT.len());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{CUT}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_by_its_bytes() {
        let fits = "ä".repeat(MAX_NOTE_BYTES / 2);
        assert_eq!(shortened(&fits, MAX_NOTE_BYTES), fits);
        let cut = shortened(&format!("x{fits}"), MAX_NOTE_BYTES);
        assert!(cut.len() <= MAX_NOTE_BYTES && cut.len() > MAX_NOTE_BYTES - 4, "{} bytes", cut.len());
        assert!(cut.starts_with("xä") && cut.ends_with("ä…"));
        assert_eq!(shortened(&"a".repeat(MAX_NOTE_BYTES + 1), MAX_NOTE_BYTES).len(), MAX_NOTE_BYTES);
    }
}
