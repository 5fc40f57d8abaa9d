//! The addresses of one block: its CIDRs, and the address or address pair at each offset.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bobbin_crds::pool::MAX_BLOCK_SIZE_BITS;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::ip_pair::IpPair;
use crate::subnet::{SubnetError, SubnetPair, both};

/// The name of an `AddressBlock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockName(pub String);

impl From<&str> for BlockName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for BlockName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl AsRef<str> for BlockName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The CIDRs of a block: an IPv4 CIDR, an IPv6 CIDR, or one of each with the same number of host bits (0 to 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockRange {
    /// The IPv4 CIDR of the block; `None` if the block has no IPv4 addresses.
    pub ipv4: Option<Ipv4Net>,
    /// The IPv6 CIDR of the block; `None` if the block has no IPv6 addresses.
    pub ipv6: Option<Ipv6Net>,
}

/// Why the given texts are not the CIDRs of a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The texts are not a valid subnet.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The block would have more than 65,536 addresses.
    #[error("{range} has 2^{bits} addresses, but a block has at most 2^16: use a longer prefix")]
    TooLarge {
        /// The CIDRs of the block.
        range: SubnetPair,
        /// The number of host bits in the CIDRs.
        bits: u8,
    },
}

impl BlockRange {
    /// Parses the fields `ipv4` and `ipv6` of a block.
    pub fn parse(ipv4: Option<&str>, ipv6: Option<&str>) -> Result<Self, BlockError> {
        let range = SubnetPair::parse(ipv4, ipv6)?;
        let bits = range.host_bits();
        if bits > MAX_BLOCK_SIZE_BITS {
            return Err(BlockError::TooLarge { range, bits });
        }
        Ok(Self { ipv4: range.ipv4, ipv6: range.ipv6 })
    }

    /// The number of address pairs in the block: 2^n for a block with n host bits.
    #[allow(clippy::len_without_is_empty)] // a block has at least one address
    pub fn len(&self) -> u32 {
        1 << self.as_subnet().host_bits().min(MAX_BLOCK_SIZE_BITS)
    }

    /// The address pair at an offset in the block; `None` if the block has no such offset.
    pub fn pair(&self, offset: u32) -> Option<IpPair> {
        (offset < self.len()).then(|| IpPair {
            ipv4: self.ipv4.map(|net| Ipv4Addr::from(u32::from(net.network()) | offset)),
            ipv6: self.ipv6.map(|net| Ipv6Addr::from(u128::from(net.network()) | u128::from(offset))),
        })
    }

    /// The offset of an IPv4 or IPv6 address in the block; `None` if the block does not contain the address.
    pub fn offset_of(&self, address: IpAddr) -> Option<u32> {
        let offset = match address {
            IpAddr::V4(address) => {
                let net = self.ipv4.filter(|net| net.contains(&address))?;
                u32::from(address) - u32::from(net.network())
            }
            IpAddr::V6(address) => {
                let net = self.ipv6.filter(|net| net.contains(&address))?;
                u32::try_from(u128::from(address) - u128::from(net.network())).ok()?
            }
        };
        (offset < self.len()).then_some(offset)
    }

    /// Whether the two blocks share an IPv4 or IPv6 address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.overlaps_subnet(&other.as_subnet())
    }

    /// Whether the block contains every address of the other range.
    pub fn contains(&self, other: &Self) -> bool {
        let ipv4 = other.ipv4.is_none_or(|other| self.ipv4.is_some_and(|net| net.contains(&other)));
        ipv4 && other.ipv6.is_none_or(|other| self.ipv6.is_some_and(|net| net.contains(&other)))
    }

    /// The block of 2^`bits` addresses that contains the pair. If `bits` exceeds the length of an address, the block
    /// contains all addresses of the family.
    pub fn around(pair: IpPair, bits: u8) -> Self {
        let ipv4 = pair.ipv4.map(|ipv4| Ipv4Net::new_assert(ipv4, 32_u8.saturating_sub(bits)).trunc());
        let ipv6 = pair.ipv6.map(|ipv6| Ipv6Net::new_assert(ipv6, 128_u8.saturating_sub(bits)).trunc());
        Self { ipv4, ipv6 }
    }

    /// Whether the block and the subnet share an IPv4 or IPv6 address.
    pub fn overlaps_subnet(&self, subnet: &SubnetPair) -> bool {
        self.as_subnet().overlaps(subnet)
    }

    /// Whether the subnet has the same address families as the block, and contains all addresses of the block.
    pub fn is_within(&self, subnet: &SubnetPair) -> bool {
        self.as_subnet().same_families(subnet)
            && (self.ipv4.is_none() || both(self.ipv4, subnet.ipv4, |block, net| net.contains(&block)))
            && (self.ipv6.is_none() || both(self.ipv6, subnet.ipv6, |block, net| net.contains(&block)))
    }

    /// The CIDRs of the block as a subnet.
    pub fn as_subnet(&self) -> SubnetPair {
        SubnetPair { ipv4: self.ipv4, ipv6: self.ipv6 }
    }
}

impl From<IpPair> for BlockRange {
    /// The CIDRs that contain only this pair: a `/32`, a `/128` or both.
    fn from(pair: IpPair) -> Self {
        Self { ipv4: pair.ipv4.map(Ipv4Net::from), ipv6: pair.ipv6.map(Ipv6Net::from) }
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_subnet().fmt(f)
    }
}

#[cfg(test)]
mod tests;
