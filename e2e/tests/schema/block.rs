//! Tests the validation rules of `AddressBlock`.

use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{ApiServer, SchemaTests, refused_among_others};

/// A block with this name and spec.
pub fn block(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock", "metadata": {"name": name}, "spec": spec})
}

/// A free block with an IPv4 and an IPv6 range.
fn free(pool: &str) -> Value {
    block(&format!("{pool}-7"), json!({"poolName": pool, "index": 7, "ipv4": "10.1.0.224/27", "ipv6": "fd00::e0/123"}))
}

/// Sets these fields in the block's spec. The value `null` removes a field.
fn with(mut block: Value, fields: &[(&str, Value)]) -> Value {
    for (field, value) in fields {
        match value {
            Value::Null => drop(block["spec"].as_object_mut().and_then(|spec| spec.remove(*field))),
            value => block["spec"][*field] = value.clone(),
        }
    }
    block
}

fn claimed(pool: &str, node: &str) -> Value {
    with(
        free(pool),
        &[
            ("nodeName", json!(node)),
            ("nodeUID", json!(format!("uid-of-{node}"))),
            ("nodeIPv4", json!("10.100.0.2")),
            ("nodeIPv6", json!("fd00:100::2")),
        ],
    )
}

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    [ranges(suite), claims(suite), changes(suite)].into_iter().flatten().collect()
}

fn ranges(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let cut = |pool: &str, fields: &[(&str, Value)]| with(free(pool), fields);
    vec![
        suite.accepts("a free block of both families", free("r1")),
        suite.accepts("a block of IPv4 only", cut("r2", &[("ipv6", Value::Null)])),
        suite.accepts("a block of IPv6 only", cut("r3", &[("ipv4", Value::Null)])),
        suite.accepts(
            "a block with the highest index",
            block(
                "r4-70368744177663",
                json!({"poolName": "r4", "index": 70_368_744_177_663_i64, "ipv4": "10.1.0.0/32"}),
            ),
        ),
        suite.refuses(
            "a block named after another index",
            block("r5-8", json!({"poolName": "r5", "index": 7, "ipv4": "10.1.0.0/27"})),
            "the name of a block must be its poolName, a dash and its index: change metadata.name",
        ),
        suite.refuses(
            "a block named after another pool",
            block("r6-7", json!({"poolName": "other", "index": 7, "ipv4": "10.1.0.0/27"})),
            "the name of a block must be its poolName, a dash and its index",
        ),
        suite.refuses(
            "a negative index",
            block("r7--1", json!({"poolName": "r7", "index": -1, "ipv4": "10.1.0.0/27"})),
            "spec.index in body should be greater than or equal to 0",
        ),
        suite.refuses(
            "a block without an address",
            cut("r8", &[("ipv4", Value::Null), ("ipv6", Value::Null)]),
            "a block has no address: set ipv4, ipv6 or both",
        ),
        suite.refuses(
            "a block whose range has no prefix length",
            cut("r9", &[("ipv4", json!("10.1.0.224"))]),
            "'10.1.0.224' is not an IPv4 CIDR",
        ),
        suite.refuses(
            "a block of the wrong family",
            cut("r10", &[("ipv6", json!("10.1.0.0/27"))]),
            "'10.1.0.0/27' is not an IPv6 CIDR",
        ),
        suite.refuses(
            "a block with host bits set",
            cut("r11", &[("ipv4", json!("10.1.0.225/27"))]),
            "10.1.0.225/27 has host bits set: write the first address of the subnet, or a longer prefix",
        ),
        suite.refuses(
            "families of a block that differ in size",
            cut("r12", &[("ipv6", json!("fd00::/120"))]),
            "10.1.0.224/27 and fd00::/120 differ in size",
        ),
        suite.refuses(
            "a block of more than 65,536 addresses",
            cut("r13", &[("ipv4", json!("10.0.0.0/15")), ("ipv6", Value::Null)]),
            "10.0.0.0/15 is too large: write a subnet of /16 to /32",
        ),
        suite.refuses(
            "an IPv6 block of more than 65,536 addresses",
            cut("r14", &[("ipv6", json!("fd00::/111")), ("ipv4", Value::Null)]),
            "fd00::/111 is too large: write a subnet of /112 to /128",
        ),
    ]
}

fn claims(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let sentence =
        "nodeName and nodeUID of a block belong together: set both to claim it, or remove both to release it";
    vec![
        suite.accepts("a claimed block", claimed("k1", "n1")),
        suite.accepts(
            "a free block with empty fields",
            with(free("k2"), &[("nodeName", json!("")), ("nodeUID", json!(""))]),
        ),
        suite.refuses("a node name without the node's UID", with(free("k3"), &[("nodeName", json!("n1"))]), sentence),
        suite.refuses("a node's UID without its name", with(free("k4"), &[("nodeUID", json!("u1"))]), sentence),
        suite.refuses(
            "a node name with an empty UID",
            with(free("k5"), &[("nodeName", json!("n1")), ("nodeUID", json!(""))]),
            sentence,
        ),
        suite.refuses(
            "a node address of the wrong family",
            with(claimed("k6", "n1"), &[("nodeIPv4", json!("fd00::2"))]),
            "'fd00::2' is not a canonical IPv4 address: write it like 10.64.0.5",
        ),
        suite.refuses(
            "a node address in another spelling",
            with(claimed("k7", "n1"), &[("nodeIPv6", json!("fd00:100::0:2"))]),
            "'fd00:100::0:2' is not a canonical IPv6 address",
        ),
    ]
}

fn changes(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let stays = "poolName, index, ipv4 and ipv6 of a block are immutable, because its addresses may be in use: restore the old values";
    vec![
        suite.accepts_change("a free block that is claimed", free("d1"), claimed("d1", "n1")),
        suite.accepts_change(
            "a claimed block that is released",
            claimed("d2", "n1"),
            with(free("d2"), &[("freeSince", json!("2026-01-02T03:04:05.000000Z"))]),
        ),
        suite.accepts_change(
            "a claim of a Node that was created again",
            claimed("d3", "n1"),
            with(claimed("d3", "n1"), &[("nodeUID", json!("another"))]),
        ),
        suite.refuses_change(
            "a block that goes from one node to another",
            claimed("d4", "n1"),
            claimed("d4", "n2"),
            "the block is claimed by the node n1 and cannot go to n2 directly: release it first",
        ),
        suite.refuses_change(
            "a block whose IPv4 range changes",
            free("d5"),
            with(free("d5"), &[("ipv4", json!("10.1.0.192/27"))]),
            stays,
        ),
        suite.refuses_change(
            "a block whose IPv6 range changes",
            free("d6"),
            with(free("d6"), &[("ipv6", json!("fd00::c0/123"))]),
            stays,
        ),
        suite.refuses_change(
            "a block that loses a family",
            free("d7"),
            with(free("d7"), &[("ipv6", Value::Null)]),
            stays,
        ),
        suite.refuses_change(
            "a block that gains a family",
            with(free("d8"), &[("ipv4", Value::Null)]),
            free("d8"),
            stays,
        ),
        stays_though_the_name_is_wrong_too(suite, "poolName", json!("other")),
        stays_though_the_name_is_wrong_too(suite, "index", json!(8)),
    ]
}

fn stays_though_the_name_is_wrong_too(suite: &Suite<ApiServer>, field: &'static str, value: Value) -> Trial {
    suite.test(&format!("refused: a block whose {field} changes"), async move |server: &mut ApiServer| {
        let block = free(&format!("e-{}", field.to_lowercase()));
        server.create(&block).await?;
        let answer = server.replace(&with(block.clone(), &[(field, value)])).await;
        server.delete(&block).await?;
        refused_among_others(answer, "poolName, index, ipv4 and ipv6 of a block are immutable").map(drop)
    })
}
