//! Tests the largest objects that the schemas allow. Every rule and message must stay within the API server's cost
//! limits.

use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{ApiServer, SchemaTests, refused_among_others};
use super::pool::pool;

/// 64 entries of `subnets`. Each has both address families, and the CIDRs are as long as possible.
fn entries() -> Vec<Value> {
    let entry = |number: u32| {
        let (ipv4, ipv6) = (
            format!("110.111.{}.128/25", 100 + number),
            format!("fd00:1111:2222:3333:4444:5555:{:04x}:ff80/121", 0x6600 + number),
        );
        assert_eq!((ipv4.len(), ipv6.len()), (18, 43));
        json!({"ipv4": ipv4, "ipv6": ipv6})
    };
    (0..64).map(entry).collect()
}

/// 256 entries of `reserved`. The CIDRs are as long as possible.
fn reserved() -> Vec<String> {
    (0..256).map(|number| format!("fd00:1111:2222:3333:4444:5555:{:04x}:fff0/124", 0x6000 + number)).collect()
}

/// A selector with as many labels, requirements and values as the schema allows.
fn selector() -> Value {
    let long = |number: usize| format!("{number:0>63}");
    let labels: serde_json::Map<String, Value> = (0..64).map(|number| (long(number), json!(long(number)))).collect();
    let values: Vec<String> = (0..64).map(long).collect();
    let expressions: Vec<Value> = (0..64)
        .map(|number| json!({"key": format!("{number:0>317}"), "operator": "NotIn", "values": values}))
        .collect();
    json!({"matchLabels": labels, "matchExpressions": expressions})
}

fn largest(name: &str) -> Value {
    pool(
        name,
        json!({
            "subnets": entries(), "blockSizeBits": 7, "reserved": reserved(), "cooldownSeconds": 86400, "draining": true,
            "maxBlocksPerNode": i64::MAX, "namespaceSelector": selector(), "nodeSelector": selector(),
        }),
    )
}

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let mut one_more = entries();
    one_more.push(json!({"ipv4": "10.1.0.0/25", "ipv6": "fd00::/121"}));
    let mut wrong_reserved = largest("g5");
    wrong_reserved["spec"]["reserved"] = json!(vec!["fd00:1111:2222:3333:4444:5555:6666:ffff/124"; 256]);
    let mut doubled = largest("g6");
    doubled["spec"]["subnets"] = json!(vec![entries().remove(0); 64]);
    vec![
        suite.accepts_change("the largest pool, and a change of it", largest("g1"), {
            let mut changed = largest("g1");
            changed["spec"]["draining"] = json!(false);
            changed
        }),
        suite.refuses(
            "a pool with one subnet too many",
            pool("g3", json!({"subnets": one_more})),
            "spec.subnets: Too many: 65: must have at most 64 items",
        ),
        suite.refuses(
            "a pool with one reserved entry too many",
            pool("g4", json!({"subnets": entries(), "reserved": vec!["10.1.0.1"; 257]})),
            "spec.reserved: Too many: 257: must have at most 256 items",
        ),
        suite.test(
            "refused: the largest list of wrong reserved entries, with its message",
            async move |server: &mut ApiServer| {
                let answer = server.create(&wrong_reserved).await;
                refused_among_others(answer, "ffff/124 has host bits set").map(drop)
            },
        ),
        suite.refuses(
            "the largest list of overlapping subnets, with its message",
            doubled,
            "subnets[1] overlaps an earlier entry",
        ),
    ]
}
