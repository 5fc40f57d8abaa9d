//! The one or two addresses of an attachment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::family::Family;

/// The addresses of one attachment: an IPv4 address, an IPv6 address, or one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IpPair {
    /// The IPv4 address; `None` if the attachment has none.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address; `None` if the attachment has none.
    pub ipv6: Option<Ipv6Addr>,
}

impl IpPair {
    /// The addresses of the pair, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// The address of the given family; `None` if the pair has none.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.ipv4.map(IpAddr::V4),
            Family::Ipv6 => self.ipv6.map(IpAddr::V6),
        }
    }
}

impl fmt::Display for IpPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ipv4, self.ipv6) {
            (Some(ipv4), Some(ipv6)) => write!(f, "{ipv4} and {ipv6}"),
            (Some(ipv4), None) => write!(f, "{ipv4}"),
            (None, Some(ipv6)) => write!(f, "{ipv6}"),
            (None, None) => f.write_str("no address"),
        }
    }
}
