use super::*;

fn findings(file: &str, text: &str) -> Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("phrases"), "anew => again\n")?;
    std::fs::write(directory.path().join(file), text)?;
    let banned = BannedPhrases::read(&directory.path().join("phrases"))?;
    Ok(check_file(directory.path(), file, &banned)?.iter().map(ToString::to_string).collect())
}

#[test]
fn a_finding_names_file_and_line_and_says_what_is_wrong() -> Result<()> {
    let long = ["word"; 26].join(" ");
    let text = format!("# Title\n\nIt begins\nanew. Short.\n\n{long}.\n");
    assert_eq!(
        findings("a.md", &text)?,
        [
            "a.md:3: It begins anew. ('anew': again)".to_owned(),
            format!("a.md:6: {} … (26 words, at most 25)", ["word"; 12].join(" ")),
        ]
    );
    Ok(())
}

#[test]
fn a_message_over_several_lines_is_one_sentence() -> Result<()> {
    let half = ["word"; 13].join(" ");
    let text = format!("fn a() {{\n    b(\n        \"{half} \\\n         {half}\",\n    );\n}}\n");
    assert_eq!(findings("a.rs", &text)?, [format!("a.rs:3: {} … (26 words, at most 25)", ["word"; 12].join(" "))]);
    Ok(())
}

#[test]
fn files_of_other_kinds_have_no_findings() -> Result<()> {
    assert!(findings("LICENSE", "anew")?.is_empty());
    assert!(findings("go.sum", "# anew")?.is_empty());
    Ok(())
}
