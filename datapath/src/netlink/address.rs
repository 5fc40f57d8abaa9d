//! IP addresses of interfaces: adding a pod's address without duplicate address detection, and listing all addresses.

use std::net::IpAddr;

use nix::libc;
use rtnetlink::packet_core::{DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, Parseable};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage};

use super::error::{KernelError, is_absent};
use super::route::{FAMILIES, family_of, host_prefix_len};
use super::socket::{Netlink, Request};

/// The request to add an address to a link as /32 or /128, without duplicate address detection.
pub(crate) fn add(link: u32, address: IpAddr) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = host_prefix_len(address);
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    let what = format!("add address {address} to link {link}");
    Request::new(what, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewAddress(message))
}

/// Lists all addresses in the socket's network namespace, each with the index of its link.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<(u32, IpAddr)>, KernelError> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut message = AddressMessage::default();
        message.header.family = family;
        match netlink.dump("addresses", &RouteNetlinkMessage::GetAddress(message)) {
            Ok(list) => {
                for reply in list.iter().filter(|reply| reply.kind() == libc::RTM_NEWADDR) {
                    found.extend(decode(&reply.payload).map_err(KernelError::undecodable("list addresses"))?);
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Decodes the link index and the address. Prefers `IFA_LOCAL`, the interface's own address, because `IFA_ADDRESS` may
/// be the peer's address.
pub(super) fn decode(message: &[u8]) -> Result<Option<(u32, IpAddr)>, DecodeError> {
    let header = AddressHeader::parse(message)?;
    let (mut local, mut either) = (None, None);
    for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
        let attribute = attribute?;
        if attribute.kind() == libc::IFA_LOCAL || attribute.kind() == libc::IFA_ADDRESS {
            match AddressAttribute::parse(&attribute)? {
                AddressAttribute::Local(address) => local = Some(address),
                AddressAttribute::Address(address) => either = Some(address),
                _ => {}
            }
        }
    }
    Ok(local.or(either).map(|address| (header.index, address)))
}
