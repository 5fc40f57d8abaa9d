//! Blocks that wait for their routes.

use super::*;

#[test]
fn a_block_is_kept_with_its_rest_until_it_is_in_use_or_anothers() {
    let since = Some(MicroTime(jiff::Timestamp::UNIX_EPOCH));
    let mut unexported = Unexported::default();
    unexported.note("a-1", "a", since.clone());
    unexported.note("b-1", "b", None);
    assert_eq!(unexported.of("a"), ["a-1"]);
    // A read of the claimed block no longer tells since when it rests.
    unexported.note("a-1", "a", None);
    assert_eq!(unexported.free_since("a-1"), since);
    unexported.forget("a-1");
    assert!(unexported.of("a").is_empty() && unexported.free_since("a-1").is_none());
    assert_eq!(unexported.of("b"), ["b-1"]);
}
