//! The rules of `AddressBlock`.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::server::{Server, refused_among_others};

/// A block with a name and a spec.
pub fn block(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock", "metadata": {"name": name}, "spec": spec})
}

/// A free block of both families.
fn free(pool: &str) -> Value {
    block(&format!("{pool}-7"), json!({"poolName": pool, "index": 7, "ipv4": "10.1.0.224/27", "ipv6": "fd00::e0/123"}))
}

/// The same with fields set, or removed by `null`.
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

pub fn tests(server: &Server) -> Vec<Trial> {
    [ranges(server), claims(server), changes(server)].into_iter().flatten().collect()
}

fn ranges(server: &Server) -> Vec<Trial> {
    let cut = |pool: &str, fields: &[(&str, Value)]| with(free(pool), fields);
    vec![
        server.accepts("a free block of both families", free("r1")),
        server.accepts("a block of IPv4 only", cut("r2", &[("ipv6", Value::Null)])),
        server.accepts("a block of IPv6 only", cut("r3", &[("ipv4", Value::Null)])),
        server.accepts(
            "the last block that there can be",
            block(
                "r4-70368744177663",
                json!({"poolName": "r4", "index": 70_368_744_177_663_i64, "ipv4": "10.1.0.0/32"}),
            ),
        ),
        server.refuses(
            "a block named after another index",
            block("r5-8", json!({"poolName": "r5", "index": 7, "ipv4": "10.1.0.0/27"})),
            "the name of a block must be its poolName, a dash and its index: change metadata.name",
        ),
        server.refuses(
            "a block named after another pool",
            block("r6-7", json!({"poolName": "other", "index": 7, "ipv4": "10.1.0.0/27"})),
            "the name of a block must be its poolName, a dash and its index",
        ),
        server.refuses(
            "a negative index",
            block("r7--1", json!({"poolName": "r7", "index": -1, "ipv4": "10.1.0.0/27"})),
            "spec.index in body should be greater than or equal to 0",
        ),
        server.refuses(
            "a block without an address",
            cut("r8", &[("ipv4", Value::Null), ("ipv6", Value::Null)]),
            "a block has no address: set ipv4, ipv6 or both",
        ),
        server.refuses(
            "a block of a bare address",
            cut("r9", &[("ipv4", json!("10.1.0.224"))]),
            "'10.1.0.224' is not an IPv4 CIDR",
        ),
        server.refuses(
            "a block of the wrong family",
            cut("r10", &[("ipv6", json!("10.1.0.0/27"))]),
            "'10.1.0.0/27' is not an IPv6 CIDR",
        ),
        server.refuses(
            "a block with stray host bits",
            cut("r11", &[("ipv4", json!("10.1.0.225/27"))]),
            "10.1.0.225/27 has host bits set: write the first address of the subnet, or a longer prefix",
        ),
        server.refuses(
            "families of a block that differ in size",
            cut("r12", &[("ipv6", json!("fd00::/120"))]),
            "10.1.0.224/27 and fd00::/120 differ in size",
        ),
        server.refuses(
            "a block of more than 65,536 addresses",
            cut("r13", &[("ipv4", json!("10.0.0.0/15")), ("ipv6", Value::Null)]),
            "10.0.0.0/15 is too large: write a subnet of /16 to /32",
        ),
        server.refuses(
            "an IPv6 block of more than 65,536 addresses",
            cut("r14", &[("ipv6", json!("fd00::/111")), ("ipv4", Value::Null)]),
            "fd00::/111 is too large: write a subnet of /112 to /128",
        ),
    ]
}

fn claims(server: &Server) -> Vec<Trial> {
    let sentence =
        "nodeName and nodeUID of a block belong together: set both to claim it, or remove both to release it";
    vec![
        server.accepts("a claimed block", claimed("k1", "n1")),
        server.accepts(
            "a free block with empty fields",
            with(free("k2"), &[("nodeName", json!("")), ("nodeUID", json!(""))]),
        ),
        server.refuses("a node name without the node's UID", with(free("k3"), &[("nodeName", json!("n1"))]), sentence),
        server.refuses("a node's UID without its name", with(free("k4"), &[("nodeUID", json!("u1"))]), sentence),
        server.refuses(
            "a node name with an empty UID",
            with(free("k5"), &[("nodeName", json!("n1")), ("nodeUID", json!(""))]),
            sentence,
        ),
        server.refuses(
            "a node address of the wrong family",
            with(claimed("k6", "n1"), &[("nodeIPv4", json!("fd00::2"))]),
            "'fd00::2' is not a canonical IPv4 address: write it like 10.64.0.5",
        ),
        server.refuses(
            "a node address in another spelling",
            with(claimed("k7", "n1"), &[("nodeIPv6", json!("fd00:100::0:2"))]),
            "'fd00:100::0:2' is not a canonical IPv6 address",
        ),
    ]
}

fn changes(server: &Server) -> Vec<Trial> {
    let stays = "poolName, index, ipv4 and ipv6 of a block are immutable, because its addresses may be in use: restore the old values";
    vec![
        server.accepts_change("a free block claimed", free("d1"), claimed("d1", "n1")),
        server.accepts_change(
            "a claimed block given back",
            claimed("d2", "n1"),
            with(free("d2"), &[("freeSince", json!("2026-01-02T03:04:05.000000Z"))]),
        ),
        server.accepts_change(
            "a claim of a node that was made again",
            claimed("d3", "n1"),
            with(claimed("d3", "n1"), &[("nodeUID", json!("another"))]),
        ),
        server.refuses_change(
            "a block that goes from one node to another",
            claimed("d4", "n1"),
            claimed("d4", "n2"),
            "the block is claimed by the node n1 and cannot go to n2 directly: release it first",
        ),
        server.refuses_change(
            "a block whose IPv4 range changes",
            free("d5"),
            with(free("d5"), &[("ipv4", json!("10.1.0.192/27"))]),
            stays,
        ),
        server.refuses_change(
            "a block whose IPv6 range changes",
            free("d6"),
            with(free("d6"), &[("ipv6", json!("fd00::c0/123"))]),
            stays,
        ),
        server.refuses_change(
            "a block that loses a family",
            free("d7"),
            with(free("d7"), &[("ipv6", Value::Null)]),
            stays,
        ),
        server.refuses_change(
            "a block that gains a family",
            with(free("d8"), &[("ipv4", Value::Null)]),
            free("d8"),
            stays,
        ),
        stays_though_the_name_is_wrong_too(server, "poolName", json!("other")),
        stays_though_the_name_is_wrong_too(server, "index", json!(8)),
    ]
}

fn stays_though_the_name_is_wrong_too(server: &Server, field: &'static str, value: Value) -> Trial {
    server.test(&format!("refused: a block whose {field} changes"), move |server| async move {
        let block = free(&format!("e-{}", field.to_lowercase()));
        server.create(&block).await?;
        let answer = server.replace(&with(block.clone(), &[(field, value)])).await;
        server.delete(&block).await?;
        refused_among_others(answer, "poolName, index, ipv4 and ipv6 of a block are immutable").map(drop)
    })
}
