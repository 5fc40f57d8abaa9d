//! Permanent neighbours on both sides of a veth pair. With these entries the kernel needs no ARP or neighbour
//! discovery, so a pod's first packet leaves at once.

use std::net::IpAddr;

use nix::libc;
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NlasIterator, ParseableParametrized,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};

use super::error::{KernelError, is_absent};
use super::route::{FAMILIES, family_of};
use super::socket::{Netlink, Request};

/// One neighbour entry of a link: an IP address and its MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Vec<u8>,
    pub(crate) permanent: bool,
}

impl Neighbour {
    /// A permanent neighbour entry.
    pub(crate) fn permanent(link: u32, address: IpAddr, mac: [u8; 6]) -> Self {
        Self { link, address, mac: mac.to_vec(), permanent: true }
    }

    fn message(&self, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(self.address);
        message.header.ifindex = self.link;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(self.address.into()));
        message
    }

    /// The request to set the entry. It replaces an existing entry, which can only be Bobbin's, because no other
    /// program sets neighbours on Bobbin's links.
    pub(crate) fn set(&self) -> Request {
        let mut message = self.message(NeighbourState::Permanent);
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(self.mac.clone()));
        let what = format!("set neighbour {} on link {}", self.address, self.link);
        Request::new(what, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message))
    }

    pub(crate) fn delete(&self) -> Request {
        let what = format!("remove neighbour {} from link {}", self.address, self.link);
        let message = self.message(NeighbourState::None);
        Request::new(what, NLM_F_ACK, RouteNetlinkMessage::DelNeighbour(message))
    }

    /// Decodes a neighbour message. Returns `None` for a neighbour without an IP address.
    pub(super) fn decode(message: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = NeighbourHeader::parse(message)?;
        let (mut address, mut mac) = (None, Vec::new());
        for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
            let attribute = attribute?;
            if attribute.kind() != libc::NDA_DST && attribute.kind() != libc::NDA_LLADDR {
                continue;
            }
            match NeighbourAttribute::parse_with_param(&attribute, header.family)? {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(found.into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address = Some(found.into()),
                NeighbourAttribute::LinkLayerAddress(found) => mac = found,
                _ => {}
            }
        }
        let permanent = is_permanent(&header);
        Ok(address.map(|address| Self { link: header.ifindex, address, mac, permanent }))
    }
}

fn is_permanent(header: &NeighbourHeader) -> bool {
    u16::from(header.state) & libc::NUD_PERMANENT != 0
}

/// Whether a neighbour message is about a permanent neighbour.
pub(crate) fn decode_permanent(message: &[u8]) -> Result<bool, DecodeError> {
    NeighbourHeader::parse(message).map(|header| is_permanent(&header))
}

/// Lists the neighbours of all links in both families.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Neighbour>, KernelError> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        match netlink.dump("neighbours", &RouteNetlinkMessage::GetNeighbour(message)) {
            Ok(list) => {
                for reply in list.iter().filter(|reply| reply.kind() == libc::RTM_NEWNEIGH) {
                    let neighbour = Neighbour::decode(&reply.payload);
                    found.extend(neighbour.map_err(KernelError::undecodable("list neighbours"))?);
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
