//! Derives the names of blocks and assignments from the contents of the objects.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The name of the block that has this index in the pool.
pub fn block(pool: &str, index: impl Display) -> String {
    format!("{pool}-{index}")
}

/// The name of an assignment is its IPv4 address. If the assignment has no IPv4 address, the name is its full IPv6
/// address, with dashes instead of colons.
///
/// Returns `None` if there is neither an IPv4 nor an IPv6 address.
pub fn assignment(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Option<String> {
    ipv4.map(|a| a.to_string()).or_else(|| ipv6.map(|a| a.segments().map(|group| format!("{group:04x}")).join("-")))
}
