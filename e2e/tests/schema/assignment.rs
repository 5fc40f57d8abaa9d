//! Tests the validation rules of `IPAssignment`.

use anyhow::{Result, ensure};
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{ApiServer, SchemaTests};

/// An assignment with this name and these addresses.
pub fn assignment(name: &str, ipv4: Option<&str>, ipv6: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "IPAssignment", "metadata": {"name": name},
        "spec": {
            "poolName": "default", "blockName": "default-0", "nodeName": "n1", "containerID": "c0ffee", "ifName": "eth0",
            "podNamespace": "shop", "podName": "cart-0", "podUID": "8f2b", "createdAt": "2026-01-02T03:04:05.000000Z", "bootID": "b1",
        },
    });
    if let Some(ipv4) = ipv4 {
        object["spec"]["ipv4"] = json!(ipv4);
    }
    if let Some(ipv6) = ipv6 {
        object["spec"]["ipv6"] = json!(ipv6);
    }
    object
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object["spec"][field] = value;
    object
}

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    [names(suite), addresses(suite), changes(suite)].into_iter().flatten().collect()
}

fn names(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let is_not = |is: &str| format!("the name of the assignment is not its address: name the assignment {is}");
    let full = "fd00-0064-0000-0000-0000-0000-0000-0005";
    let in_full = "fd00:64::5 in full, eight groups of four digits with dashes between them";
    vec![
        suite.accepts("an assignment named by its IPv4 address", assignment("10.1.0.1", Some("10.1.0.1"), None)),
        suite.accepts("a pair named by its IPv4 address", assignment("10.1.0.2", Some("10.1.0.2"), Some("fd00:64::2"))),
        suite.accepts("an IPv6 address named in full", assignment(full, None, Some("fd00:64::5"))),
        suite.refuses(
            "a name that is another IPv4 address",
            assignment("10.1.0.3", Some("10.1.0.4"), None),
            &is_not("10.1.0.4"),
        ),
        suite.refuses("a name that is a word", assignment("cart-0", Some("10.1.0.5"), None), &is_not("10.1.0.5")),
        suite.refuses(
            "a pair named by its IPv6 address",
            assignment("fd00-0064-0000-0000-0000-0000-0000-0006", Some("10.1.0.6"), Some("fd00:64::6")),
            "name the assignment 10.1.0.6",
        ),
        suite.refuses(
            "a name that is another IPv6 address",
            assignment("fd00-0064-0000-0000-0000-0000-0000-0007", None, Some("fd00:64::5")),
            in_full,
        ),
        suite.refuses(
            "an IPv6 address named in short",
            assignment("fd00-64--5", None, Some("fd00:64::5")),
            &is_not(in_full),
        ),
        suite.refuses(
            "an IPv6 address named without leading zeros",
            assignment("fd00-64-0-0-0-0-0-5", None, Some("fd00:64::5")),
            in_full,
        ),
        suite.refuses(
            "a name of 39 characters that is no address",
            assignment(&"a".repeat(39), None, Some("fd00:64::5")),
            in_full,
        ),
        suite.test("refused: the same address a second time, from any client", async move |server: &mut ApiServer| {
            let first = assignment("10.1.0.9", Some("10.1.0.9"), None);
            server.create(&first).await?;
            let second = server.create(&with(first.clone(), "containerID", json!("other"))).await;
            server.delete(&first).await?;
            already_exists(second.err())
        }),
    ]
}

fn already_exists(error: Option<anyhow::Error>) -> Result<()> {
    let status = error.as_ref().and_then(|error| match error.downcast_ref() {
        Some(kube::Error::Api(status)) => Some(status.reason.clone()),
        _ => None,
    });
    ensure!(
        status.as_deref() == Some("AlreadyExists"),
        "the error must have the reason AlreadyExists, but is {error:?}"
    );
    Ok(())
}

fn addresses(suite: &Suite<ApiServer>) -> Vec<Trial> {
    vec![
        suite.accepts("an assignment of no pod", {
            let mut object = assignment("10.2.0.1", Some("10.2.0.1"), None);
            if let Some(spec) = object["spec"].as_object_mut() {
                spec.retain(|field, _| !field.starts_with("pod"));
            }
            object
        }),
        suite.refuses(
            "an assignment without an address",
            assignment("10.2.0.2", None, None),
            "an assignment has no address: set ipv4, ipv6 or both",
        ),
        suite.refuses(
            "an IPv6 address not in canonical text",
            assignment("10.2.0.3", Some("10.2.0.3"), Some("fd00:0064::5")),
            "'fd00:0064::5' is not a canonical IPv6 address: write it like fd00:64::5, in lower case, in its shortest form, without a prefix",
        ),
        suite.refuses(
            "an IPv6 address in capitals",
            assignment("10.2.0.4", Some("10.2.0.4"), Some("FD00:64::5")),
            "'FD00:64::5' is not a canonical IPv6 address",
        ),
        suite.refuses(
            "an IPv6 address in the place of the IPv4 address",
            assignment("10.2.0.5", Some("10.2.0.5"), Some("10.2.0.5")),
            "'10.2.0.5' is not a canonical IPv6 address",
        ),
        suite.refuses(
            "an IPv4 address with leading zeros",
            assignment("010.2.0.9", Some("010.2.0.9"), None),
            "'010.2.0.9' is not a canonical IPv4 address",
        ),
        suite.refuses(
            "an address with a prefix",
            assignment("10.2.0.6", Some("10.2.0.6"), Some("fd00:64::5/64")),
            "'fd00:64::5/64' is not a canonical IPv6 address",
        ),
        suite.refuses(
            "an interface name longer than Linux has",
            with(assignment("10.2.0.7", Some("10.2.0.7"), None), "ifName", json!("sixteen-letters-")),
            "spec.ifName: Too long: may not be more than 15",
        ),
        suite.refuses(
            "an empty container ID",
            with(assignment("10.2.0.8", Some("10.2.0.8"), None), "containerID", json!("")),
            "spec.containerID in body should be at least 1 chars long",
        ),
    ]
}

fn changes(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let sentence = "an IPAssignment is immutable: delete it and create another one";
    let of = |name: &str| assignment(name, Some(name), None);
    let mut tests: Vec<Trial> = [
        ("10.3.0.1", "containerID"),
        ("10.3.0.2", "podUID"),
        ("10.3.0.3", "nodeName"),
        ("10.3.0.4", "blockName"),
        ("10.3.0.5", "bootID"),
    ]
    .into_iter()
    .map(|(name, field)| {
        suite.refuses_change(
            &format!("an assignment whose {field} changes"),
            of(name),
            with(of(name), field, json!("other")),
            sentence,
        )
    })
    .collect();
    tests.push(suite.refuses_change(
        "an assignment that gains an address",
        of("10.3.0.6"),
        with(of("10.3.0.6"), "ipv6", json!("fd00::6")),
        sentence,
    ));
    let mut labelled = of("10.3.0.7");
    labelled["metadata"]["labels"] = json!({"seen": "yes"});
    tests.push(suite.accepts_change("an assignment that gets a label", of("10.3.0.7"), labelled));
    tests
}
