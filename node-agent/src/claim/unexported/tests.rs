//! Blocks that wait for their routes.

use super::*;

#[test]
fn a_block_is_kept_until_it_is_in_use_or_anothers() {
    let mut unexported = Unexported::default();
    unexported.note("a-1", "a");
    unexported.note("b-1", "b");
    unexported.note("a-1", "a");
    assert_eq!(unexported.of("a"), ["a-1"]);
    unexported.forget("a-1");
    assert!(unexported.of("a").is_empty());
    assert_eq!(unexported.of("b"), ["b-1"]);
}
