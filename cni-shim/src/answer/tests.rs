//! Tests the search for `cniVersion`. Also parses error objects with a JSON library, to test that they are valid JSON.

use super::*;

#[test]
fn the_version_is_found_at_any_place_of_stdin() {
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
fn an_error_with_any_text_is_valid_json() {
    let text = "a \"quote\", a \\, a\nline, a \u{1} and an ü";
    let response = error(br#"{"cniVersion":"0.4.0"}"#, bobbin_cni_wire::code::TRY_AGAIN_LATER, &["x", text]);
    let object: serde_json::Value = serde_json::from_slice(&response.stdout).unwrap();
    assert_eq!(object, serde_json::json!({"cniVersion": "0.4.0", "code": 11, "msg": format!("x{text}")}));
    assert_eq!(response.exit, 1);
}
