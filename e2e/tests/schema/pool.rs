//! Tests the validation rules of `AddressPool`.

use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{ApiServer, SchemaTests};

/// A pool with this name and spec.
pub fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec})
}

fn v4(cidrs: &[&str]) -> Value {
    json!(cidrs.iter().map(|cidr| json!({"ipv4": cidr})).collect::<Vec<_>>())
}

fn v6(cidrs: &[&str]) -> Value {
    json!(cidrs.iter().map(|cidr| json!({"ipv6": cidr})).collect::<Vec<_>>())
}

/// A pool of one IPv4 subnet. Its spec also has the field `field` with this value.
fn with(name: &str, field: &str, value: Value) -> Value {
    let mut pool = pool(name, json!({"subnets": v4(&["10.1.0.0/16"])}));
    pool["spec"][field] = value;
    pool
}

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    [subnets(suite), sizes(suite), bounds(suite), selectors(suite), names(suite), changes(suite)]
        .into_iter()
        .flatten()
        .collect()
}

fn subnets(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let subnets = |name: &str, subnets: Value| pool(name, json!({"subnets": subnets}));
    vec![
        suite.accepts("a pool of IPv4 subnets from /8 to /32", pool("s1", json!({"blockSizeBits": 0, "subnets": v4(&["10.0.0.0/8", "192.168.7.4/32"])}))),
        suite.accepts("a pool of IPv6 subnets from /32 to /128", pool("s2", json!({"blockSizeBits": 0, "subnets": v6(&["fd00::/32", "fd01::1/128"])}))),
        suite.accepts("a pool of both families", subnets("s3", json!([{"ipv4": "10.2.0.0/16", "ipv6": "fd00:2::/112"}]))),
        suite.accepts("an IPv6 subnet in any spelling", subnets("s4", v6(&["FD00:0:0:0::/64"]))),
        suite.refuses("a pool without subnets", pool("s5", json!({})), "spec.subnets: Required value"),
        suite.refuses("a pool with no entry in subnets", subnets("s6", json!([])), "spec.subnets in body should have at least 1 items"),
        suite.refuses("an entry without an address", subnets("s7", json!([{}])), "an entry of subnets has no address: set ipv4, ipv6 or both"),
        suite.refuses("a subnet that is no CIDR", subnets("s8", v4(&["10.1.0.0"])), "'10.1.0.0' is not an IPv4 CIDR: write it like 10.64.0.0/16"),
        suite.refuses("an IPv6 subnet that is no CIDR", subnets("s9", v6(&["fd00::/129"])), "'fd00::/129' is not an IPv6 CIDR: write it like fd00:64::/112"),
        suite.refuses("an IPv4 subnet with leading zeros", subnets("s10", v4(&["010.1.0.0/16"])), "'010.1.0.0/16' is not an IPv4 CIDR"),
        suite.refuses("an empty subnet", subnets("s11", v4(&[""])), "'' is not an IPv4 CIDR"),
        suite.refuses("an IPv6 subnet as ipv4", subnets("s12", v4(&["fd00::/112"])), "'fd00::/112' is not an IPv4 CIDR"),
        suite.refuses("an IPv4 subnet as ipv6", subnets("s13", v6(&["10.1.0.0/16"])), "'10.1.0.0/16' is not an IPv6 CIDR"),
        suite.refuses("an IPv4-mapped IPv6 subnet", subnets("s14", v6(&["::ffff:10.1.0.0/112"])), "is not an IPv6 CIDR"),
        suite.refuses("an IPv4 subnet with host bits set", subnets("s15", v4(&["10.1.2.3/16"])), "10.1.2.3/16 has host bits set: write the first address of the subnet, or a longer prefix"),
        suite.refuses("an IPv6 subnet with host bits set", subnets("s16", v6(&["fd00::1:5/112"])), "fd00::1:5/112 has host bits set: write the first address of the subnet, or a longer prefix"),
        suite.refuses("an IPv4 subnet wider than /8", subnets("s17", v4(&["10.0.0.0/7"])), "10.0.0.0/7 is too large: write a subnet of /8 to /32"),
        suite.refuses("a loopback subnet", subnets("s21", v4(&["127.0.0.0/24"])), "127.0.0.0/24 has addresses that no pod can use (loopback, multicast, link-local or unspecified): write a unicast subnet like 10.64.0.0/16"),
        suite.refuses("a multicast subnet", subnets("s22", v4(&["224.0.0.0/24"])), "224.0.0.0/24 has addresses that no pod can use"),
        suite.refuses("a subnet of unspecified addresses", subnets("s23", v4(&["0.0.0.0/8"])), "0.0.0.0/8 has addresses that no pod can use"),
        suite.refuses("a link-local IPv6 subnet", subnets("s24", v6(&["fe80::/120"])), "fe80::/120 has addresses that no pod can use"),
        suite.refuses("a multicast IPv6 subnet", subnets("s25", v6(&["ff02::/120"])), "ff02::/120 has addresses that no pod can use"),
        suite.refuses("an IPv6 subnet wider than /32", subnets("s18", v6(&["fd00::/31"])), "fd00::/31 is too large: write a subnet of /32 to /128"),
        suite.refuses(
            "families of one entry that differ in size",
            subnets("s20", json!([{"ipv4": "10.1.0.0/16", "ipv6": "fd00::/64"}])),
            "spec.subnets[0]: Invalid value: \"object\": 10.1.0.0/16 and fd00::/64 differ in size, but each pod gets one address from each of them: give the IPv6 subnet the prefix /112",
        ),
        suite.refuses(
            "entries that differ in their families",
            subnets("s21", json!([{"ipv4": "10.1.0.0/16"}, {"ipv4": "10.2.0.0/16", "ipv6": "fd00::/112"}])),
            "entries of subnets differ in their families, but all pods of a pool get the same families",
        ),
        suite.accepts("subnets that touch", subnets("s22", v4(&["10.1.0.0/24", "10.1.1.0/24"]))),
        suite.refuses(
            "one subnet inside another",
            subnets("s23", v4(&["10.1.0.0/16", "10.2.0.0/16", "10.1.7.0/24"])),
            "subnets[2] overlaps an earlier entry: remove one of them or make it smaller",
        ),
        suite.refuses("the same subnet twice", subnets("s24", v4(&["10.1.0.0/16", "10.1.0.0/16"])), "subnets[1] overlaps an earlier entry"),
        suite.refuses(
            "entries that overlap in IPv6 only",
            subnets("s25", json!([{"ipv4": "10.1.0.0/24", "ipv6": "fd00::/120"}, {"ipv4": "10.1.1.0/24", "ipv6": "fd00::/120"}])),
            "subnets[1] overlaps an earlier entry",
        ),
        suite.refuses("the same subnet in two spellings", subnets("s26", v6(&["fd00::/64", "FD00:0::/64"])), "subnets[1] overlaps an earlier entry"),
    ]
}

fn sizes(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let sized = |name: &str, bits: i64, subnet: Value| pool(name, json!({"blockSizeBits": bits, "subnets": [subnet]}));
    vec![
        suite.accepts(
            "a block as large as the subnet",
            sized("z1", 8, json!({"ipv4": "10.1.0.0/24", "ipv6": "fd00::/120"})),
        ),
        suite.accepts("blocks of one address", sized("z2", 0, json!({"ipv4": "10.1.0.0/24"}))),
        suite.accepts("blocks of 65,536 addresses", sized("z3", 16, json!({"ipv6": "fd00::/112"}))),
        suite.refuses(
            "a block larger than the subnet",
            sized("z4", 9, json!({"ipv4": "10.1.0.0/24"})),
            "subnets[0] is smaller than a block of 512 addresses: set a smaller blockSizeBits or a larger subnet",
        ),
        suite.refuses(
            "a block larger than the IPv6 subnet",
            sized("z5", 16, json!({"ipv6": "fd00::/113"})),
            "subnets[0] is smaller than a block of 65536 addresses",
        ),
        suite.refuses(
            "a subnet smaller than a block of the default size",
            pool("z6", json!({"subnets": v4(&["10.1.0.0/28"])})),
            "subnets[0] is smaller than a block of 32 addresses",
        ),
        suite.refuses(
            "a negative block size",
            sized("z7", -1, json!({"ipv4": "10.1.0.0/24"})),
            "spec.blockSizeBits in body should be greater than or equal to 0",
        ),
        suite.refuses(
            "a block size above 16",
            sized("z8", 17, json!({"ipv4": "10.0.0.0/8"})),
            "spec.blockSizeBits in body should be less than or equal to 16",
        ),
    ]
}

fn bounds(suite: &Suite<ApiServer>) -> Vec<Trial> {
    vec![
        suite.accepts(
            "reserved addresses and CIDRs of both families",
            with("b1", "reserved", json!(["10.1.0.0", "10.1.255.0/24", "fd00::1", "fd00::/126"])),
        ),
        suite.refuses(
            "a reserved entry that is neither an address nor a CIDR",
            with("b2", "reserved", json!(["10.1.0.1", "gateway"])),
            "spec.reserved[1]: Invalid value: \"string\": 'gateway' is neither an address nor a CIDR: write it like 10.64.0.1 or 10.64.0.0/28",
        ),
        suite.refuses(
            "a reserved entry that is a range with a dash",
            with("b3", "reserved", json!(["10.1.0.1-10.1.0.9"])),
            "'10.1.0.1-10.1.0.9' is neither an address nor a CIDR",
        ),
        suite.refuses(
            "a reserved CIDR with host bits set",
            with("b4", "reserved", json!(["10.1.0.9/29"])),
            "10.1.0.9/29 has host bits set: write the first address of the subnet, or a longer prefix",
        ),
        suite.accepts("no cool-down", with("b5", "cooldownSeconds", json!(0))),
        suite.accepts("a cool-down of a day", with("b6", "cooldownSeconds", json!(86400))),
        suite.refuses(
            "a negative cool-down",
            with("b7", "cooldownSeconds", json!(-1)),
            "spec.cooldownSeconds in body should be greater than or equal to 0",
        ),
        suite.refuses(
            "a cool-down of more than a day",
            with("b8", "cooldownSeconds", json!(86401)),
            "spec.cooldownSeconds in body should be less than or equal to 86400",
        ),
        suite.accepts("at most one block per node", with("b9", "maxBlocksPerNode", json!(1))),
        suite.refuses(
            "at most zero blocks per node",
            with("b10", "maxBlocksPerNode", json!(0)),
            "spec.maxBlocksPerNode in body should be greater than or equal to 1",
        ),
    ]
}

fn selectors(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let requirement = |requirement: Value| json!({"matchExpressions": [requirement]});
    let sentence = "a requirement of matchExpressions is invalid: use In or NotIn with values, or Exists or DoesNotExist without values";
    vec![
        suite.accepts("an empty selector", with("l1", "namespaceSelector", json!({}))),
        suite.accepts(
            "a selector of labels and requirements",
            with("l2", "nodeSelector", json!({"matchLabels": {"zone": "a"}, "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}, {"key": "gpu", "operator": "DoesNotExist"}]})),
        ),
        suite.refuses("an unknown operator", with("l3", "nodeSelector", requirement(json!({"key": "zone", "operator": "Is", "values": ["a"]}))), sentence),
        suite.refuses("In without values", with("l4", "namespaceSelector", requirement(json!({"key": "zone", "operator": "In"}))), sentence),
        suite.refuses("Exists with values", with("l5", "namespaceSelector", requirement(json!({"key": "zone", "operator": "Exists", "values": ["a"]}))), sentence),
    ]
}

fn names(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let named = |name: &str| pool(name, json!({"subnets": v4(&["10.1.0.0/16"])}));
    vec![
        suite.accepts("a pool name of 63 letters", named(&"p".repeat(63))),
        suite.refuses(
            "a pool name too long for the names of its blocks",
            named(&"p".repeat(64)),
            "the pool's name is too long or has a dot, but blocks are named after their pool: use at most 63 letters, digits and dashes",
        ),
        suite.refuses("a pool name with a dot", named("a.b"), "the pool's name is too long or has a dot"),
    ]
}

fn changes(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let of = |name: &str, cidrs: &[&str]| pool(name, json!({"subnets": v4(cidrs)}));
    let sized = |name: &str, bits: i64| pool(name, json!({"subnets": v4(&["10.1.0.0/16"]), "blockSizeBits": bits}));
    vec![
        suite.accepts_change("an appended subnet", of("c1", &["10.1.0.0/16"]), of("c1", &["10.1.0.0/16", "10.2.0.0/16"])),
        suite.refuses_change(
            "an appended subnet that overlaps",
            of("c7", &["10.1.0.0/16"]),
            of("c7", &["10.1.0.0/16", "10.1.7.0/24"]),
            "subnets[1] overlaps an earlier entry",
        ),
        suite.refuses_change("a changed block size", sized("c8", 5), sized("c8", 6), "blockSizeBits is immutable, because blocks of the old size may be in use"),
        suite.refuses_change("a block size that is removed in favour of the default", sized("c9", 6), of("c9", &["10.1.0.0/16"]), "blockSizeBits is immutable"),
        suite.accepts_change("a removed block size that equals the default", sized("c10", 5), of("c10", &["10.1.0.0/16"])),
        suite.accepts_change("a pool set to draining", of("c11", &["10.1.0.0/16"]), {
            pool("c11", json!({"subnets": v4(&["10.1.0.0/16"]), "draining": true, "cooldownSeconds": 10, "reserved": ["10.1.0.1"], "maxBlocksPerNode": 3}))
        }),
    ]
}
