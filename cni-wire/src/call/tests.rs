//! Tests valid and invalid environments of a CNI call.

use super::*;

fn call(entries: &[(&str, &str)]) -> Result<Call, CniError> {
    let env = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Call::read(&Request { env, stdin: Vec::new() })
}

const ADD: [(&str, &str); 4] =
    [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/a"), ("CNI_IFNAME", "eth0")];

fn add_with(name: &str, value: &str) -> Result<Call, CniError> {
    let mut entries = ADD.to_vec();
    entries.retain(|(key, _)| *key != name);
    entries.push((name, value));
    call(&entries)
}

#[test]
fn a_complete_environment_is_parsed() {
    let read = add_with(
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u",
    )
    .unwrap();
    assert_eq!(read.verb, Verb::Add);
    assert_eq!(read.netns.as_deref(), Some("/run/netns/a"));
    assert_eq!(read.pod, PodArgs { namespace: Some("ns".into()), name: Some("p".into()), uid: Some("u".into()) });
}

#[test]
fn a_missing_or_malformed_variable_is_named_with_code_4() {
    for (name, value) in [
        ("CNI_COMMAND", "JUMP"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-a"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", &"a".repeat(201)),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_ARGS", "K8S_POD_NAME"),
    ] {
        let error = add_with(name, value).unwrap_err();
        assert_eq!(error.code.number, 4);
        assert!(error.msg.contains(name), "{error}");
    }
}

#[test]
fn a_del_needs_no_namespace_and_a_gc_needs_no_variable() {
    assert!(
        call(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]).unwrap().netns.is_none()
    );
    for verb in ["GC", "STATUS", "VERSION"] {
        assert!(call(&[("CNI_COMMAND", verb)]).is_ok());
    }
}
