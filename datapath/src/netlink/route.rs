//! Routes: adding and removing Bobbin's routes, listing the routes of a table, and route lookups.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, ParseableParametrized,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::{KernelError, is_absent};
use super::socket::{Netlink, Reply, Request};

pub(super) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];
/// The metric that the kernel sets on an IPv6 route if the request contains no metric.
const IPV6_METRIC: u32 = 1024;
/// The metric of a block's blackhole route. The metric is high, so that the kernel prefers a pod's route with the same
/// prefix.
const BLACKHOLE_METRIC: u32 = 4096;
/// The number of the main routing table.
pub(crate) const MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// One route in a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) protocol: u8,
    pub(crate) to: IpNet,
    pub(crate) blackhole: bool,
    /// The link over which packets leave. `None` if the route is not a unicast route.
    pub(crate) link: Option<u32>,
    pub(crate) via: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) metric: u32,
}

impl Route {
    /// Whether this route satisfies `wanted`. If `wanted` has no source, any source matches, because the agent may not
    /// know the node's addresses yet.
    pub(crate) fn satisfies(&self, wanted: &Self) -> bool {
        self == wanted || wanted.source.is_none() && Self { source: None, ..*self } == *wanted
    }

    /// The route to a pod: `<ip> dev <link> src <node address>`.
    pub(crate) fn to_pod(table: u32, protocol: u8, address: IpAddr, link: u32, source: Option<IpAddr>) -> Self {
        let metric = if address.is_ipv6() { IPV6_METRIC } else { 0 };
        let to = IpNet::from(address);
        Self { table, protocol, to, blackhole: false, link: Some(link), via: None, source, metric }
    }

    /// A route to a network over a link or a gateway, with the family's default metric.
    pub(crate) fn over(table: u32, protocol: u8, to: IpNet, link: Option<u32>, via: Option<IpAddr>) -> Self {
        let metric = if to.addr().is_ipv6() { IPV6_METRIC } else { 0 };
        Self { table, protocol, to, blackhole: false, link, via, source: None, metric }
    }

    /// The blackhole route of a block. It drops packets to addresses that no pod has.
    pub(crate) fn blackhole(table: u32, protocol: u8, to: IpNet) -> Self {
        Self { table, protocol, to, blackhole: true, link: None, via: None, source: None, metric: BLACKHOLE_METRIC }
    }

    /// Whether both routes have the same table, prefix and metric. If one of two such routes exists, the kernel refuses
    /// to add the other (EEXIST).
    pub(crate) fn has_same_key(&self, other: &Self) -> bool {
        self.table == other.table && self.to == other.to && self.metric == other.metric
    }

    fn message(&self) -> RouteMessage {
        let any_scope = self.via.is_some() || self.blackhole || self.to.addr().is_ipv6();
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family_of(self.to.addr()),
            destination_prefix_length: self.to.prefix_len(),
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: RouteProtocol::from(self.protocol),
            scope: if any_scope { RouteScope::Universe } else { RouteScope::Link },
            kind: if self.blackhole { RouteType::BlackHole } else { RouteType::Unicast },
            flags: if self.via.is_some() && self.link.is_some() { RouteFlags::Onlink } else { RouteFlags::empty() },
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.to.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.to.network().into()));
        }
        attributes.extend(self.link.map(RouteAttribute::Oif));
        attributes.extend(self.via.map(|via| RouteAttribute::Gateway(via.into())));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        if self.metric > 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        message
    }

    /// The request to add the route. The kernel answers `EEXIST` if another route has the same table, prefix and
    /// metric.
    pub(crate) fn add(&self) -> Request {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        Request::new(format!("add route {self}"), flags, RouteNetlinkMessage::NewRoute(self.message()))
    }

    /// The request to remove exactly this route. The kernel removes a route only if table, prefix, metric, protocol,
    /// type and link match.
    pub(crate) fn delete(&self) -> Request {
        Request::new(format!("remove route {self}"), NLM_F_ACK, RouteNetlinkMessage::DelRoute(self.message()))
    }

    /// Decodes a route message. Skips attributes that Bobbin does not need. Returns `None` for a cached route
    /// (`RTM_F_CLONED`).
    pub(super) fn decode(message: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = RouteHeader::parse(message)?;
        if header.flags.contains(RouteFlags::Cloned) {
            return Ok(None);
        }
        let any = if header.address_family == AddressFamily::Inet {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let prefix = |address| {
            IpNet::new(address, header.destination_prefix_length)
                .map_err(|_| DecodeError::from("the prefix of a route is longer than its address"))
        };
        let mut route = Self {
            table: u32::from(header.table),
            protocol: header.protocol.into(),
            to: prefix(any)?,
            blackhole: header.kind == RouteType::BlackHole,
            link: None,
            via: None,
            source: None,
            metric: 0,
        };
        for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
            let attribute = attribute?;
            let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
            match attribute.kind() {
                libc::RTA_DST
                | libc::RTA_OIF
                | libc::RTA_GATEWAY
                | libc::RTA_PRIORITY
                | libc::RTA_PREFSRC
                | libc::RTA_TABLE => match RouteAttribute::parse_with_param(&attribute, parameters)? {
                    RouteAttribute::Destination(to) => {
                        let to = ip(&to).ok_or("the destination of a route is not an IP address")?;
                        route.to = prefix(to)?;
                    }
                    RouteAttribute::Oif(link) => route.link = Some(link),
                    RouteAttribute::Gateway(via) => route.via = ip(&via),
                    RouteAttribute::Priority(metric) => route.metric = metric,
                    RouteAttribute::PrefSource(source) => route.source = ip(&source),
                    RouteAttribute::Table(table) => route.table = table,
                    _ => {}
                },
                // Bobbin adds no multipath routes, so the first hop is enough. If the hops of a foreign route can't be
                // decoded, `route.link` stays empty.
                libc::RTA_MULTIPATH => {
                    if let Ok(RouteAttribute::MultiPath(hops)) =
                        RouteAttribute::parse_with_param(&attribute, parameters)
                    {
                        let first = hops.first();
                        route.link = first.map(|hop| hop.interface_index);
                        route.via = first.and_then(|hop| hop.attributes.iter().find_map(gateway));
                    }
                }
                _ => {}
            }
        }
        // Only a unicast route leads over a link. For other routes, ignore the link: for an IPv6 blackhole route, the
        // kernel reports `lo`.
        if header.kind != RouteType::Unicast {
            route.link = None;
        }
        Ok(Some(route))
    }
}

/// The gateway of a hop, if this attribute of the hop contains the gateway.
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::Gateway(via) = attribute { ip(via) } else { None }
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

/// The netlink address family of an IP address.
pub(super) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The prefix length of a single address: 32 or 128.
pub(super) fn host_prefix_len(address: IpAddr) -> u8 {
    IpNet::from(address).prefix_len()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Lists all routes of a table in both address families. A table that does not exist counts as empty.
pub(crate) fn list(netlink: &mut Netlink, table: u32) -> Result<Vec<Route>, KernelError> {
    dump(netlink, table, RouteProtocol::Unspec, &format!("routes of table {table}"))
}

/// Lists a table's routes with this protocol number, in both address families. The kernel filters out all other routes.
pub(crate) fn list_of(netlink: &mut Netlink, table: u32, protocol: u8) -> Result<Vec<Route>, KernelError> {
    let what = format!("routes of protocol {protocol} in table {table}");
    let found = dump(netlink, table, RouteProtocol::from(protocol), &what)?;
    Ok(found.into_iter().filter(|route| route.protocol == protocol).collect())
}

/// Lists a table's routes with this protocol number. `RouteProtocol::Unspec` selects every protocol number.
fn dump(netlink: &mut Netlink, table: u32, protocol: RouteProtocol, what: &str) -> Result<Vec<Route>, KernelError> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = protocol;
        message.attributes.push(RouteAttribute::Table(table));
        match netlink.dump(what, &RouteNetlinkMessage::GetRoute(message)) {
            Ok(list) => {
                for reply in list.iter().filter(|reply| reply.kind() == libc::RTM_NEWROUTE) {
                    let route = Route::decode(&reply.payload);
                    let route = route.map_err(KernelError::undecodable(format!("list {what}")))?;
                    found.extend(route.filter(|route| route.table == table));
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The index of the link over which the kernel sends packets to an address. `None` if there is no route to the address.
pub(crate) fn link_to(netlink: &mut Netlink, address: IpAddr) -> Result<Option<u32>, KernelError> {
    match look_up(netlink, address) {
        Err(KernelError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(found) => {
            let leaves = found.into_iter().find(|(header, _)| header.kind == RouteType::Unicast);
            Ok(leaves.and_then(|(_, link)| link))
        }
    }
}

/// Whether an address belongs to a link in the socket's network namespace.
pub(crate) fn is_local(netlink: &mut Netlink, address: IpAddr) -> Result<bool, KernelError> {
    Ok(look_up(netlink, address)?.iter().any(|(header, _)| header.kind == RouteType::Local))
}

/// Asks the kernel how it would route a packet to an address.
fn look_up(netlink: &mut Netlink, address: IpAddr) -> Result<Vec<(RouteHeader, Option<u32>)>, KernelError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(address);
    message.header.destination_prefix_length = host_prefix_len(address);
    message.attributes.push(RouteAttribute::Destination(address.into()));
    let what = format!("look up the route to {address}");
    let replies = netlink.send_one(Request::new(what.clone(), 0, RouteNetlinkMessage::GetRoute(message)))?;
    let found = replies.iter().filter(|reply| reply.kind() == libc::RTM_NEWROUTE).map(decode_looked_up);
    found.collect::<Result<_, _>>().map_err(KernelError::undecodable(what))
}

fn decode_looked_up(reply: &Reply) -> Result<(RouteHeader, Option<u32>), DecodeError> {
    let header = RouteHeader::parse(&reply.payload)?;
    let mut link = None;
    for attribute in NlasIterator::new(&reply.payload[header.buffer_len()..]) {
        let attribute = attribute?;
        if attribute.kind() == libc::RTA_OIF {
            let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
            if let RouteAttribute::Oif(found) = RouteAttribute::parse_with_param(&attribute, parameters)? {
                link = Some(found);
            }
        }
    }
    Ok((header, link))
}

/// Decodes only the table and the protocol of a route message.
pub(crate) fn decode_table(message: &[u8]) -> Result<(u32, u8), DecodeError> {
    let header = RouteHeader::parse(message)?;
    let mut table = u32::from(header.table);
    for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
        let attribute = attribute?;
        if attribute.kind() == libc::RTA_TABLE {
            let parameters = (header.address_family, header.kind, RouteLwEnCapType::None);
            if let RouteAttribute::Table(long) = RouteAttribute::parse_with_param(&attribute, parameters)? {
                table = long;
            }
        }
    }
    Ok((table, header.protocol.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_drops_packets_leads_over_no_link() {
        let link = |kind| {
            let mut message = Route::over(MAIN, 4, "fd00:10::/48".parse().unwrap(), Some(1), None).message();
            message.header.kind = kind;
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            Route::decode(&bytes).unwrap().unwrap().link
        };
        for kind in [RouteType::Unreachable, RouteType::Prohibit, RouteType::Throw, RouteType::BlackHole] {
            assert_eq!(link(kind), None, "{kind:?}");
        }
        assert_eq!(link(RouteType::Unicast), Some(1));
    }
}
