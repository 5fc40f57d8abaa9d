//! Tests that attachment keys are converted to text and parsed back without a change.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn an_attachment_is_parsed_back_from_its_text(container in "[a-zA-Z0-9_.-]{1,64}", interface in "[a-zA-Z0-9_.-]{1,15}") {
        let key = AttachmentKey::new(container, interface);
        prop_assert_eq!(key.to_string().parse::<AttachmentKey>(), Ok(key));
    }
}

#[test]
fn any_other_text_is_refused() {
    for text in ["", "/", "abc", "abc/", "/eth0", "a/b/c"] {
        let error = text.parse::<AttachmentKey>().unwrap_err();
        assert!(error.to_string().contains("expected <containerID>/<ifName>"), "{error}");
    }
}
