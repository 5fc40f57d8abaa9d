//! Object names that are derived from their content.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The name of the block of a pool at an index.
pub fn block(pool: &str, index: i64) -> String {
    format!("{pool}-{index}")
}

/// The name of the assignment of an address pair: the IPv4 address, or without one the IPv6 address in full with dashes.
///
/// Returns `None` when neither is given.
pub fn assignment(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Option<String> {
    ipv4.map(|a| a.to_string()).or_else(|| ipv6.map(|a| a.segments().map(|group| format!("{group:04x}")).join("-")))
}
