//! Shortens texts that people read, such as the notes of events and the messages of conditions.

use std::fmt::Display;

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

/// Joins names with commas for a message, for example `a, b and 3 more`. `total` is the number of all names, including those that
/// the message leaves out.
#[must_use]
pub fn list_names<T: Display>(named: impl IntoIterator<Item = T>, total: usize) -> String {
    let named: Vec<String> = named.into_iter().map(|name| name.to_string()).collect();
    match total.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_says_how_many_it_leaves_out() {
        assert_eq!(list_names(["a", "b"], 2), "a, b");
        assert_eq!(list_names(["a", "b"], 5), "a, b and 3 more");
        assert_eq!(list_names(["a"], 0), "a");
    }

    #[test]
    fn a_long_text_is_cut_between_characters_by_its_bytes() {
        let fits = "ä".repeat(MAX_NOTE_BYTES / 2);
        assert_eq!(shortened(&fits, MAX_NOTE_BYTES), fits);
        let cut = shortened(&format!("x{fits}"), MAX_NOTE_BYTES);
        assert!(
            cut.len() <= MAX_NOTE_BYTES && cut.len() > MAX_NOTE_BYTES - 4,
            "the shortened text has {} bytes",
            cut.len()
        );
        assert!(cut.starts_with("xä") && cut.ends_with("ä…"));
        assert_eq!(shortened(&"a".repeat(MAX_NOTE_BYTES + 1), MAX_NOTE_BYTES).len(), MAX_NOTE_BYTES);
    }
}
