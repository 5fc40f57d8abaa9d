use super::*;

#[test]
fn a_clean_file_is_named_and_removed_and_the_comments_stay() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("excused.txt");
    std::fs::write(&path, "# Why.\nb.rs\na.rs\n\nc.rs\n")?;
    let mut excused = Excused::read(&path)?;
    let clean = excused.not_in(&BTreeSet::from(["a.rs", "c.rs", "not-listed.rs"]));
    assert_eq!(clean, ["b.rs"]);
    excused.remove(&clean);
    assert!(excused.contains("a.rs") && !excused.contains("b.rs"));
    excused.write(&path)?;
    assert_eq!(std::fs::read_to_string(&path)?, "# Why.\na.rs\nc.rs\n");
    Ok(())
}
