//! Addresses of interfaces: the pod's own, set without duplicate address detection.

use std::net::IpAddr;

use crate::message::{ACK, CREATE, EXCL, Message, ROOT_DUMP, attributes, u32_at};
use crate::route::{address, family, is_absent, octets};
use crate::socket::{Ask, KernelError, Netlink};

const NEW: u16 = 20;
const GET: u16 = 22;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const FLAGS: u16 = 8;
const NO_DETECTION: u32 = 0x02;

/// Adds a /32 or /128 that is usable at once.
pub(crate) fn add(link: u32, own: IpAddr) -> Ask {
    let mut fixed = [0; 8];
    fixed[0] = family(own);
    fixed[1] = if own.is_ipv4() { 32 } else { 128 };
    fixed[4..8].copy_from_slice(&link.to_ne_bytes());
    let message = Message::new(NEW, ACK | CREATE | EXCL, &fixed).attr(LOCAL, &octets(own)).attr(ADDRESS, &octets(own));
    let message = if own.is_ipv6() { message.u32(FLAGS, NO_DETECTION) } else { message };
    Ask::new(format!("add address {own} to link {link}"), message)
}

/// All addresses of the namespace: link and address.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<(u32, IpAddr)>, KernelError> {
    let mut found = Vec::new();
    for family in [2u8, 10] {
        let mut fixed = [0; 8];
        fixed[0] = family;
        match netlink.dump("addresses", &Message::new(GET, ROOT_DUMP, &fixed)) {
            Ok(list) => found.extend(list.iter().filter(|reply| reply.kind == NEW).filter_map(|reply| {
                let parts = attributes(reply.payload.get(8..)?);
                let of = |wanted| parts.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
                Some((u32_at(&reply.payload, 4), address(of(LOCAL).or(of(ADDRESS))?)?))
            })),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
