//! One entry of a pool's `subnets`: an IPv4 CIDR, an IPv6 CIDR, or one of each with the same number of host bits.

pub mod family;
pub mod ip_pair;
pub mod layout;
pub mod overlap;
pub mod reserved;

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IPv4 subnet, an IPv6 subnet, or a pair of both with the same number of host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubnetPair {
    /// The IPv4 CIDR; `None` if the subnet has no IPv4 addresses.
    pub ipv4: Option<Ipv4Net>,
    /// The IPv6 CIDR; `None` if the subnet has no IPv6 addresses.
    pub ipv6: Option<Ipv6Net>,
}

/// Why the given texts are not a subnet entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// The entry has neither an IPv4 nor an IPv6 CIDR.
    #[error("a subnet entry names neither an IPv4 nor an IPv6 CIDR: give at least one")]
    Empty,
    /// A text is not a CIDR of the expected family.
    #[error("{text:?} is not an {family} CIDR: write it like {example}")]
    NotACidr {
        /// The text that is not a CIDR.
        text: String,
        /// The address family that the text should have.
        family: &'static str,
        /// An example of a valid CIDR.
        example: &'static str,
    },
    /// The CIDR has host bits set.
    #[error("{text} has host bits set: write {instead}")]
    StrayHostBits {
        /// The text with host bits.
        text: String,
        /// The CIDR without host bits.
        instead: IpNet,
    },
    /// The IPv4 and the IPv6 CIDR have different numbers of host bits.
    #[error("{ipv4} and {ipv6} differ in size ({} and {} host bits): give both the same number of host bits", host_bits(32, ipv4.prefix_len()), host_bits(128, ipv6.prefix_len()))]
    SizesDiffer {
        /// The IPv4 CIDR.
        ipv4: Ipv4Net,
        /// The IPv6 CIDR.
        ipv6: Ipv6Net,
    },
}

fn host_bits(width: u8, prefix: u8) -> u8 {
    width.saturating_sub(prefix)
}

/// Parses an IPv4 CIDR. Refuses a CIDR that has host bits set.
pub(crate) fn parse_ipv4(text: &str) -> Result<Ipv4Net, SubnetError> {
    let net: Ipv4Net = text.parse().map_err(|_| SubnetError::NotACidr {
        text: text.to_owned(),
        family: "IPv4",
        example: "10.64.0.0/16",
    })?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(SubnetError::StrayHostBits { text: text.to_owned(), instead: net.trunc().into() })
    }
}

/// Parses an IPv6 CIDR. Refuses a CIDR that has host bits set.
pub(crate) fn parse_ipv6(text: &str) -> Result<Ipv6Net, SubnetError> {
    let net: Ipv6Net = text.parse().map_err(|_| SubnetError::NotACidr {
        text: text.to_owned(),
        family: "IPv6",
        example: "fd00:64::/112",
    })?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(SubnetError::StrayHostBits { text: text.to_owned(), instead: net.trunc().into() })
    }
}

impl SubnetPair {
    /// Parses a subnet entry from the texts of its two CIDRs.
    pub fn parse(ipv4: Option<&str>, ipv6: Option<&str>) -> Result<Self, SubnetError> {
        let ipv4 = ipv4.map(parse_ipv4).transpose()?;
        let ipv6 = ipv6.map(parse_ipv6).transpose()?;
        match (ipv4, ipv6) {
            (None, None) => Err(SubnetError::Empty),
            (Some(v4), Some(v6)) if host_bits(32, v4.prefix_len()) != host_bits(128, v6.prefix_len()) => {
                Err(SubnetError::SizesDiffer { ipv4: v4, ipv6: v6 })
            }
            _ => Ok(Self { ipv4, ipv6 }),
        }
    }

    /// Whether the two subnets share an IPv4 or IPv6 address.
    pub fn overlaps(&self, other: &Self) -> bool {
        both(self.ipv4, other.ipv4, |a, b| a.contains(&b) || b.contains(&a))
            || both(self.ipv6, other.ipv6, |a, b| a.contains(&b) || b.contains(&a))
    }

    /// The number of host bits. A subnet with `n` host bits has 2^n addresses of each of its families.
    pub fn host_bits(&self) -> u8 {
        match (self.ipv4, self.ipv6) {
            (Some(net), _) => host_bits(32, net.prefix_len()),
            (None, Some(net)) => host_bits(128, net.prefix_len()),
            (None, None) => 0,
        }
    }

    /// Whether the two subnets have CIDRs of the same families.
    pub fn same_families(&self, other: &Self) -> bool {
        self.ipv4.is_some() == other.ipv4.is_some() && self.ipv6.is_some() == other.ipv6.is_some()
    }
}

impl From<IpNet> for SubnetPair {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self { ipv4: Some(net), ipv6: None },
            IpNet::V6(net) => Self { ipv4: None, ipv6: Some(net) },
        }
    }
}

/// Whether both values are present and `test` returns true for them.
pub(crate) fn both<T>(a: Option<T>, b: Option<T>, test: impl FnOnce(T, T) -> bool) -> bool {
    a.zip(b).is_some_and(|(a, b)| test(a, b))
}

impl fmt::Display for SubnetPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ipv4, self.ipv6) {
            (Some(ipv4), Some(ipv6)) => write!(f, "{ipv4} and {ipv6}"),
            (Some(ipv4), None) => write!(f, "{ipv4}"),
            (None, Some(ipv6)) => write!(f, "{ipv6}"),
            (None, None) => f.write_str("no subnet"),
        }
    }
}

#[cfg(test)]
mod tests;
