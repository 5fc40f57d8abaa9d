//! Routes: the ones we make, and what a dump of a table shows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::message::{ACK, CREATE, EXCL, Message, ROOT_DUMP, Reply, attributes, u32_at};
use crate::socket::{Ask, KernelError, Netlink};

const NEW: u16 = 24;
const DELETE: u16 = 25;
const GET: u16 = 26;

const DESTINATION: u16 = 1;
const OUT: u16 = 4;
const GATEWAY: u16 = 5;
const METRIC: u16 = 6;
const SOURCE: u16 = 7;
const MULTIPATH: u16 = 9;
const TABLE: u16 = 15;
const ONLINK: u32 = 4;
const CLONED: u32 = 0x200;
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
const BLACKHOLE: u8 = 6;
const SCOPE_LINK: u8 = 253;
/// The metric an IPv6 route gets that names none.
const IPV6_METRIC: u32 = 1024;
/// The metric of the blackhole behind the pods' routes.
pub(crate) const LAST_METRIC: u32 = 4096;
/// The main table.
pub(crate) const MAIN: u32 = 254;

/// One route, as made or as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) protocol: u8,
    pub(crate) to: IpNet,
    pub(crate) blackhole: bool,
    pub(crate) link: Option<u32>,
    pub(crate) via: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) metric: u32,
}

impl Route {
    /// `<ip> dev <link> src <node address>` of a pod.
    pub(crate) fn to_pod(table: u32, protocol: u8, address: IpAddr, link: u32, source: Option<IpAddr>) -> Self {
        let metric = if address.is_ipv6() { IPV6_METRIC } else { 0 };
        let to = IpNet::from(address);
        Self { table, protocol, to, blackhole: false, link: Some(link), via: None, source, metric }
    }

    /// A route to a network over a link, or to a gateway, in a family's usual metric.
    pub(crate) fn over(table: u32, protocol: u8, to: IpNet, link: Option<u32>, via: Option<IpAddr>) -> Self {
        let metric = if to.addr().is_ipv6() { IPV6_METRIC } else { 0 };
        Self { table, protocol, to, blackhole: false, link, via, source: None, metric }
    }

    /// The blackhole that takes what no pod's route takes.
    pub(crate) fn blackhole(table: u32, protocol: u8, to: IpNet) -> Self {
        Self { table, protocol, to, blackhole: true, link: None, via: None, source: None, metric: LAST_METRIC }
    }

    /// Whether both lead to the same prefix at the same metric of the same table: the kernel's own key.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        self.table == other.table && self.to == other.to && self.metric == other.metric
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let gateway_scope = self.via.is_some() || self.blackhole || self.to.addr().is_ipv6();
        let mut fixed = [0; 12];
        fixed[0] = family(self.to.addr());
        fixed[1] = self.to.prefix_len();
        fixed[4] = u8::try_from(self.table).unwrap_or(0);
        fixed[5] = self.protocol;
        fixed[6] = if gateway_scope { 0 } else { SCOPE_LINK };
        fixed[7] = if self.blackhole { BLACKHOLE } else { UNICAST };
        if self.via.is_some() && self.link.is_some() {
            fixed[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
        }
        let mut message = Message::new(kind, flags, &fixed).u32(TABLE, self.table);
        if self.to.prefix_len() > 0 {
            message = message.attr(DESTINATION, &octets(self.to.network()));
        }
        if let Some(link) = self.link {
            message = message.u32(OUT, link);
        }
        if let Some(via) = self.via {
            message = message.attr(GATEWAY, &octets(via));
        }
        if let Some(source) = self.source {
            message = message.attr(SOURCE, &octets(source));
        }
        if self.metric > 0 { message.u32(METRIC, self.metric) } else { message }
    }

    /// Adds it; `EEXIST` when another is in its place.
    pub(crate) fn add(&self) -> Ask {
        Ask::new(format!("add route {self}"), self.message(NEW, ACK | CREATE | EXCL))
    }

    /// Removes it, and no other: table, prefix, metric, protocol, type and link must agree.
    pub(crate) fn delete(&self) -> Ask {
        Ask::new(format!("remove route {self}"), self.message(DELETE, ACK))
    }

    fn read(reply: &Reply) -> Option<Self> {
        let body = (reply.kind == NEW).then_some(&reply.payload)?;
        if body.len() < 12 || u32_at(body, 8) & CLONED != 0 {
            return None;
        }
        let zero = if body[0] == 2 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let to = IpNet::new(zero, body[1]).ok()?;
        let mut route = Self {
            table: u32::from(body[4]),
            protocol: body[5],
            to,
            blackhole: body[7] == BLACKHOLE,
            link: None,
            via: None,
            source: None,
            metric: 0,
        };
        for (kind, value) in attributes(&body[12..]) {
            match kind {
                DESTINATION => route.to = IpNet::new(address(value)?, body[1]).ok()?,
                OUT => route.link = Some(u32_at(value, 0)),
                GATEWAY => route.via = address(value),
                METRIC => route.metric = u32_at(value, 0),
                SOURCE => route.source = address(value),
                TABLE => route.table = u32_at(value, 0),
                // Not ours to interpret: the first hop's link says enough.
                MULTIPATH => route.link = Some(u32_at(value, 4)),
                _ => {}
            }
        }
        if route.blackhole {
            route.link = None; // IPv6 shows lo here
        }
        Some(route)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.blackhole { "blackhole " } else { "" };
        write!(f, "{kind}{}", self.to)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(link) = self.link {
            write!(f, " over link {link}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " in table {}", self.table)
    }
}

/// The kernel's number of an address's family.
pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that bytes make.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// All routes of one table, both families. Tables that do not exist are empty.
pub(crate) fn list(netlink: &mut Netlink, table: u32) -> Result<Vec<Route>, KernelError> {
    dump(netlink, table, 0, &format!("routes of table {table}"))
}

/// The routes of one table that carry a protocol number, both families. The kernel leaves the others out.
pub(crate) fn list_of(netlink: &mut Netlink, table: u32, protocol: u8) -> Result<Vec<Route>, KernelError> {
    let found = dump(netlink, table, protocol, &format!("routes of protocol {protocol} in table {table}"))?;
    Ok(found.into_iter().filter(|route| route.protocol == protocol).collect())
}

/// `protocol` 0: any.
fn dump(netlink: &mut Netlink, table: u32, protocol: u8, what: &str) -> Result<Vec<Route>, KernelError> {
    let mut found = Vec::new();
    for family in [2u8, 10] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        fixed[5] = protocol;
        let message = Message::new(GET, ROOT_DUMP, &fixed).u32(TABLE, table);
        match netlink.dump(what, &message) {
            Ok(list) => found.extend(list.iter().filter_map(Route::read).filter(|route| route.table == table)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The link over which packets to an address leave; `None`: there is no way.
pub(crate) fn link_to(netlink: &mut Netlink, address: IpAddr) -> Result<Option<u32>, KernelError> {
    let found = match look_up(netlink, address) {
        Err(KernelError::Refused { .. }) => return Ok(None),
        found => found?,
    };
    let leads_out = |reply: &&Reply| reply.kind == NEW && reply.payload.get(7) == Some(&UNICAST);
    let Some(body) = found.iter().find(leads_out).and_then(|reply| reply.payload.get(12..)) else { return Ok(None) };
    Ok(attributes(body).into_iter().find(|(kind, _)| *kind == OUT).map(|(_, link)| u32_at(link, 0)))
}

/// Whether packets to an address end in this namespace.
pub(crate) fn is_local(netlink: &mut Netlink, own: IpAddr) -> Result<bool, KernelError> {
    let found = look_up(netlink, own)?;
    Ok(found.iter().any(|reply| reply.kind == NEW && reply.payload.get(7) == Some(&LOCAL)))
}

/// The kernel's own answer to where a packet to an address goes.
fn look_up(netlink: &mut Netlink, address: IpAddr) -> Result<Vec<Reply>, KernelError> {
    let mut fixed = [0; 12];
    fixed[0] = family(address);
    fixed[1] = IpNet::from(address).prefix_len();
    let message = Message::new(GET, 0, &fixed).attr(DESTINATION, &octets(address));
    netlink.one(format!("look up {address}"), message)
}

/// The table, or the whole family, does not exist.
pub(crate) fn is_absent(error: &KernelError) -> bool {
    use nix::libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
    matches!(error.errno(), Some(ENOENT | EAFNOSUPPORT | EOPNOTSUPP))
}
