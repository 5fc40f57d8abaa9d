//! The scan for the version, and the error object, read back by a JSON library.

use super::*;

#[test]
fn the_version_is_found_wherever_it_stands() {
    for (stdin, version) in [
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, Some("1.0.0")),
        ("{\n \"name\": \"n\",\n \"cniVersion\" :\t\"0.4.0\"\n}", Some("0.4.0")),
        (r#"{"name":"n"}"#, None),
        (r#"{"cniVersion":5}"#, None),
        (r#"{"cniVersion":"1.0"#, None),
        (r#"{"cniVersion":"\"}"#, None),
        ("", None),
    ] {
        assert_eq!(version_asked(stdin.as_bytes()), version, "{stdin}");
    }
}

#[test]
fn an_error_reads_back_whatever_its_text() {
    let text = "a \"quote\", a \\, a\nline, a \u{1} and an ü";
    let response = error(br#"{"cniVersion":"0.4.0"}"#, 11, &["x", text]);
    let object: serde_json::Value = serde_json::from_slice(&response.stdout).unwrap();
    assert_eq!(object, serde_json::json!({"cniVersion": "0.4.0", "code": 11, "msg": format!("x{text}")}));
    assert_eq!(response.exit, 1);
}
