//! Permanent neighbours: with one on each side of a veth nothing is to be resolved and the first packet goes at once.

use std::net::IpAddr;

use crate::message::{ACK, CREATE, Message, REPLACE, ROOT_DUMP, Reply, attributes, u32_at};
use crate::route::{address, family, is_absent, octets};
use crate::socket::{Ask, KernelError, Netlink};

const NEW: u16 = 28;
const DELETE: u16 = 29;
const GET: u16 = 30;
const DESTINATION: u16 = 1;
const MAC: u16 = 2;
const PERMANENT: u16 = 0x80;

/// One neighbour on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Vec<u8>,
    pub(crate) permanent: bool,
}

impl Neighbour {
    /// A permanent one.
    pub(crate) fn permanent(link: u32, address: IpAddr, mac: [u8; 6]) -> Self {
        Self { link, address, mac: mac.to_vec(), permanent: true }
    }

    fn fixed(&self) -> [u8; 12] {
        let mut fixed = [0; 12];
        fixed[0] = family(self.address);
        fixed[4..8].copy_from_slice(&self.link.to_ne_bytes());
        fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
        fixed
    }

    /// Sets it, whatever is there: neighbours of our own links are ours.
    pub(crate) fn set(&self) -> Ask {
        let message = Message::new(NEW, ACK | CREATE | REPLACE, &self.fixed())
            .attr(DESTINATION, &octets(self.address))
            .attr(MAC, &self.mac);
        Ask::new(format!("set neighbour {} on link {}", self.address, self.link), message)
    }

    /// Removes it.
    pub(crate) fn delete(&self) -> Ask {
        let mut fixed = self.fixed();
        fixed[8..10].copy_from_slice(&[0, 0]);
        let message = Message::new(DELETE, ACK, &fixed).attr(DESTINATION, &octets(self.address));
        Ask::new(format!("remove neighbour {} from link {}", self.address, self.link), message)
    }

    fn read(reply: &Reply) -> Option<Self> {
        let body = (reply.kind == NEW && reply.payload.len() >= 12).then_some(&reply.payload)?;
        let state = u16::from_ne_bytes([body[8], body[9]]);
        let list = attributes(&body[12..]);
        let of = |wanted| list.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
        Some(Self {
            link: u32_at(body, 4),
            address: address(of(DESTINATION)?)?,
            mac: of(MAC).unwrap_or_default().to_vec(),
            permanent: state & PERMANENT != 0,
        })
    }
}

/// The neighbours of all links, both families.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Neighbour>, KernelError> {
    let mut found = Vec::new();
    for family in [2u8, 10] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        match netlink.dump("neighbours", &Message::new(GET, ROOT_DUMP, &fixed)) {
            Ok(list) => found.extend(list.iter().filter_map(Neighbour::read)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
