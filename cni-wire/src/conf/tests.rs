//! Tests valid and invalid network configurations.

use super::*;

fn parse(text: &str) -> Result<NetConf, CniError> {
    NetConf::parse(text.as_bytes(), Verb::Add)
}

#[test]
fn every_supported_version_is_accepted() {
    for version in Version::ALL {
        let conf = parse(&format!(r#"{{"cniVersion":"{version}","name":"bobbin","type":"bobbin"}}"#)).unwrap();
        assert_eq!((conf.cni_version, conf.name.as_str(), conf.kind.as_str()), (version, "bobbin", "bobbin"));
    }
}

#[test]
fn an_unknown_version_is_code_1_and_names_the_supported_ones() {
    for text in [r#"{"cniVersion":"2.0.0","name":"n"}"#, r#"{"name":"n"}"#, r#"{"cniVersion":"0.2.0","name":"n"}"#] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code.number, 1);
        assert!(error.msg.contains("0.3.1, 0.4.0, 1.0.0 and 1.1.0"), "{error}");
    }
}

#[test]
fn a_verb_that_the_version_lacks_is_code_1() {
    for (version, verb, allowed) in [
        ("0.3.1", Verb::Check, false),
        ("0.4.0", Verb::Check, true),
        ("1.0.0", Verb::Gc, false),
        ("1.0.0", Verb::Status, false),
        ("1.1.0", Verb::Status, true),
    ] {
        let conf = NetConf::parse(format!(r#"{{"cniVersion":"{version}","name":"n"}}"#).as_bytes(), verb);
        assert_eq!(conf.is_ok(), allowed, "{verb} in {version}");
        assert!(conf.is_ok() || conf.is_err_and(|error| error.code.number == 1));
    }
}

#[test]
fn invalid_stdin_is_refused_in_one_line_with_the_right_code() {
    for (text, code, word) in [
        ("", 6, "no network configuration"),
        ("  \n", 6, "no network configuration"),
        ("{", 6, "not JSON"),
        ("{}{}", 6, "not JSON"),
        ("[]", 7, "object"),
        (r#"{"cniVersion":"1.1.0"}"#, 7, "name"),
        (r#"{"cniVersion":"1.1.0","name":""}"#, 7, "name"),
        (r#"{"cniVersion":1,"name":"n"}"#, 7, "cniVersion"),
        (r#"{"cniVersion":"1.1.0","name":"n","prevResult":[]}"#, 7, "prevResult"),
        (r#"{"cniVersion":"1.1.0","name":"n","runtimeConfig":[]}"#, 7, "runtimeConfig"),
        (r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":{}}"#, 7, "valid-attachments"),
        (r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"a"}]}"#, 7, "ifname"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code.number, code, "{text}: {error}");
        assert!(error.msg.contains(word) && !error.msg.contains('\n'), "{error}");
    }
}

#[test]
fn gc_without_its_list_is_refused_and_an_empty_list_is_accepted() {
    let base = r#"{"cniVersion":"1.1.0","name":"n""#;
    assert_eq!(parse(&format!("{base}}}")).unwrap().valid_attachments().unwrap_err().code.number, 7);
    let empty = parse(&format!(r#"{base},"cni.dev/valid-attachments":[]}}"#)).unwrap();
    assert!(empty.valid_attachments().unwrap().is_empty());
    let one =
        parse(&format!(r#"{base},"cni.dev/valid-attachments":[{{"containerID":"a","ifname":"eth0"}}]}}"#)).unwrap();
    assert_eq!(
        one.valid_attachments().unwrap(),
        [ValidAttachment { container_id: "a".into(), if_name: "eth0".into() }]
    );
}

#[test]
fn an_error_object_has_a_version_a_code_and_a_message() {
    let value: Value =
        serde_json::from_slice(&CniError::new(code::TRY_AGAIN_LATER, "later \"x\"").to_json("1.0.0")).unwrap();
    assert_eq!(value, serde_json::json!({"cniVersion":"1.0.0","code":11,"msg":"later \"x\""}));
}

#[test]
fn an_error_has_the_version_of_the_call_or_the_newest() {
    assert_eq!(NetConf::version_text(br#"{"cniVersion":"9.9"}"#), "9.9");
    assert_eq!(NetConf::version_text(b"{"), "1.1.0");
}

#[test]
fn a_del_ignores_an_unreadable_previous_result() {
    let conf = NetConf::parse(br#"{"cniVersion":"1.1.0","name":"n","prevResult":[]}"#, Verb::Del).unwrap();
    assert!(conf.prev_result.is_none());
}
