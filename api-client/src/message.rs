//! The length of what is written for people to read: notes of events, messages of conditions.

/// The API server refuses the note of an event that has more bytes.
pub const LONGEST_NOTE: usize = 1024;

/// A text of at most `longest` bytes: the rest is cut off between two characters, and `…` stands for it.
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
        let fits = "ä".repeat(LONGEST_NOTE / 2);
        assert_eq!(shortened(&fits, LONGEST_NOTE), fits);
        let cut = shortened(&format!("x{fits}"), LONGEST_NOTE);
        assert!(cut.len() <= LONGEST_NOTE && cut.len() > LONGEST_NOTE - 4, "{} bytes", cut.len());
        assert!(cut.starts_with("xä") && cut.ends_with("ä…"));
        assert_eq!(shortened(&"a".repeat(LONGEST_NOTE + 1), LONGEST_NOTE).len(), LONGEST_NOTE);
    }
}
