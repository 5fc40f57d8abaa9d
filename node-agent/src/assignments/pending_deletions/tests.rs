//! Tests the files of pending deletions.

use super::*;

#[test]
fn a_saved_deletion_is_loaded_until_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let deletions = PendingDeletions::open(&directory.path().join("deletions")).unwrap();
    let one = PendingDeletion { name: "10.64.0.5".to_owned(), key: AttachmentKey::new("c1", "eth0"), uid: None };
    let other = PendingDeletion { key: AttachmentKey::new("c2", "eth0"), uid: Some("u".to_owned()), ..one.clone() };
    deletions.save(&one).unwrap();
    deletions.save(&other).unwrap();
    deletions.save(&one).unwrap();
    std::fs::write(directory.path().join("deletions/torn.json"), b"{\"name\":").unwrap();
    let mut found = PendingDeletions::open(&directory.path().join("deletions")).unwrap().load();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, [one.clone(), other.clone()]);
    deletions.remove(&one.name, &one.key);
    deletions.remove(&one.name, &one.key);
    assert_eq!(deletions.load(), [other]);
}
