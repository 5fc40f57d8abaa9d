//! Types for an attachment that should be wired ([`Wiring`]), that was just wired ([`Attached`]), or that was found on
//! the node ([`ObservedLink`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bobbin_ipam::{AttachmentKey, IpPair};

use crate::netns::NetnsRef;

/// One attachment, as it should be wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The attachment's key. The key's interface name is the name inside the container.
    pub key: AttachmentKey,
    /// The pod's addresses.
    pub pair: IpPair,
    /// The node's own IPv4 address: the source address of packets from the node to the pod.
    pub node_ipv4: Option<Ipv4Addr>,
    /// The node's own IPv6 address: the source address of IPv6 packets from the node to the pod.
    pub node_ipv6: Option<Ipv6Addr>,
}

impl Wiring {
    /// The node's own addresses, in the families that it has.
    pub(crate) fn node_addresses(&self) -> Vec<IpAddr> {
        self.node_ipv4.map(IpAddr::V4).into_iter().chain(self.node_ipv6.map(IpAddr::V6)).collect()
    }
}

/// One attachment, as it was wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Name of the link on the node.
    pub host_if: String,
    /// Index of the link on the node.
    pub host_index: u32,
    /// MAC address of the link on the node.
    pub host_mac: [u8; 6],
    /// MAC address of the interface in the container.
    pub container_mac: [u8; 6],
    /// MTU of the host link and of the container's interface, in bytes.
    pub mtu: u32,
    /// The container's network namespace. `None` if the ID of this namespace or the cookie of the node's namespace is
    /// unknown. The attachment then counts as in use until its DEL.
    pub netns: Option<NetnsRef>,
}

/// A host link of an attachment, as found on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// The attachment's key, from the link's alias.
    pub key: AttachmentKey,
    /// Name of the link on the node.
    pub host_if: String,
    /// Index of the link on the node.
    pub host_index: u32,
    /// The addresses that the pod table routes over this link.
    pub pair: IpPair,
}
