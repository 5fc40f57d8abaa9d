//! The names of blocks and assignments, derived from what the objects contain.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The name of the block that has this index in the pool.
pub fn block(pool: &str, index: i64) -> String {
    format!("{pool}-{index}")
}

/// The name of an assignment: its IPv4 address or, if it has none, its IPv6 address in full with dashes.
///
/// Returns `None` if there is neither an IPv4 nor an IPv6 address.
pub fn assignment(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Option<String> {
    ipv4.map(|a| a.to_string()).or_else(|| ipv6.map(|a| a.segments().map(|group| format!("{group:04x}")).join("-")))
}
