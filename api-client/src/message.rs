//! Shortens texts that people read, such as the notes of events and the messages of conditions.

use std::fmt::Display;

/// The maximum length of an event's note, in bytes. The API server refuses an event with a longer note.
pub const MAX_NOTE_BYTES: usize = 1024;

/// The maximum length of a list of names in a message, in bytes. Without this limit, a few pods could fill the message,
/// because a pod's namespace and name together can have more than 300 bytes.
const MAX_LIST_BYTES: usize = 400;

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

/// Returns a text of at most `longest` bytes. A longer text loses its middle, because the end of a message says what to do.
#[must_use]
pub fn without_middle(text: &str, longest: usize) -> String {
    const CUT: &str = " … ";
    if text.len() <= longest {
        return text.to_owned();
    }
    let kept = longest.saturating_sub(CUT.len());
    let start = text.floor_char_boundary(kept / 2);
    let end = text.ceil_char_boundary(text.len() - (kept - kept / 2));
    format!("{}{CUT}{}", &text[..start], &text[end..])
}

/// Joins sentences with semicolons. If the joined text has more than `longest` bytes, leaves out the last sentences,
/// and says how many are left out.
#[must_use]
pub fn join_sentences(sentences: &[String], longest: usize) -> String {
    let joined = |count: usize| {
        let named = sentences.iter().take(count).map(String::as_str).collect::<Vec<_>>().join("; ");
        match sentences.len() - count {
            0 => named,
            more => format!("{named}; and {more} more"),
        }
    };
    let fits = (1..=sentences.len()).rev().map(joined).find(|text| text.len() <= longest);
    fits.unwrap_or_else(|| without_middle(&sentences.join("; "), longest))
}

/// Joins names with commas for a message, for example `a, b and 3 more`. `total` is the number of all names; `named` may have only
/// the first of them. If the list would be longer than [`MAX_LIST_BYTES`], the function leaves out the last names.
#[must_use]
pub fn list_names<T: Display>(named: impl IntoIterator<Item = T>, total: usize) -> String {
    let mut named: Vec<String> = named.into_iter().map(|name| name.to_string()).collect();
    while named.len() > 1 && named.iter().map(|name| name.len() + 2).sum::<usize>() > MAX_LIST_BYTES {
        named.pop();
    }
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
        let long = "n".repeat(MAX_LIST_BYTES / 2 - 10);
        assert_eq!(list_names([&long, &long, &long], 5), format!("{long}, {long} and 3 more"));
    }

    #[test]
    fn a_text_without_its_middle_keeps_its_end() {
        let text = format!("{}: delete the pod", "ä".repeat(600));
        let cut = without_middle(&text, MAX_NOTE_BYTES);
        assert!(cut.len() <= MAX_NOTE_BYTES && cut.starts_with("ää") && cut.ends_with("ä: delete the pod"), "{cut}");
        assert_eq!(without_middle("short", MAX_NOTE_BYTES), "short");
    }

    #[test]
    fn sentences_that_do_not_fit_are_counted() {
        let all: Vec<String> = (0..9).map(|number| format!("sentence {number}")).collect();
        assert_eq!(join_sentences(&all[..2], 100), "sentence 0; sentence 1");
        assert_eq!(join_sentences(&all, 40), "sentence 0; sentence 1; and 7 more");
        assert!(join_sentences(&["x".repeat(99)], 40).len() <= 40);
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
