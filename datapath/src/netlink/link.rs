//! Links: the veth pair of an attachment, lists of links, and removal by index or group.

use std::os::fd::{AsRawFd, BorrowedFd};

use bobbin_ipam::AttachmentKey;
use nix::libc;
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, Parseable, ParseableParametrized,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::{KernelError, gone_is_success, text_of};
use super::own_changes::OwnChanges;
use super::socket::{Answer, Netlink, Reply, Request};
use crate::names::key_of_alias;

/// `IFLA_INET6_ADDR_GEN_MODE`, which libc lacks: how the kernel generates IPv6 link-local addresses for a link.
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// The index of the loopback link in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A link as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
    pub(crate) peer: u32,
    /// The ID of the veth peer's network namespace. `None` if the peer is in the same namespace as this link.
    pub(crate) peer_netns: Option<i32>,
    pub(crate) group: u32,
    pub(crate) up: bool,
    pub(crate) alias: String,
    pub(crate) kind: Option<InfoKind>,
    pub(crate) qdisc: String,
    /// Whether the link is configured so that the kernel adds no IPv6 link-local address to it.
    pub(crate) has_no_link_local: bool,
}

impl Link {
    pub(crate) fn is_veth(&self) -> bool {
        self.kind == Some(InfoKind::Veth)
    }

    /// Whether the link is a veth whose alias contains the key of an attachment.
    pub(crate) fn is_own(&self) -> bool {
        self.owner().is_some()
    }

    /// The attachment's key in the link's alias. `None` if the link is no veth, or if the alias is not Bobbin's.
    pub(crate) fn owner(&self) -> Option<AttachmentKey> {
        if self.is_veth() { key_of_alias(&self.alias) } else { None }
    }

    /// Whether packets can leave through the link. The kernel gives a new link the qdisc `noop`, which drops all
    /// packets, and replaces this qdisc when it activates the link.
    pub(crate) fn can_send(&self) -> bool {
        self.qdisc != "noop"
    }

    /// Decodes a link message. Skips attributes that Bobbin does not need. Otherwise one unusual link of another
    /// program could make the whole list unreadable.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let header = LinkHeader::parse(message)?;
        let mut link = Self { index: header.index, up: header.flags.contains(LinkFlags::Up), ..Self::default() };
        for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_IFNAME => link.name = text_of(attribute.value()),
                libc::IFLA_QDISC => link.qdisc = text_of(attribute.value()),
                libc::IFLA_IFALIAS => link.alias = text_of(attribute.value()),
                libc::IFLA_LINKINFO => link.kind = kind_of(attribute.value())?,
                libc::IFLA_AF_SPEC => link.has_no_link_local = has_no_link_local(attribute.value())?,
                libc::IFLA_ADDRESS | libc::IFLA_MTU | libc::IFLA_LINK | libc::IFLA_LINK_NETNSID | libc::IFLA_GROUP => {
                    match LinkAttribute::parse_with_param(&attribute, header.interface_family)? {
                        LinkAttribute::Address(mac) => link.mac = mac,
                        LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                        LinkAttribute::Link(peer) => link.peer = peer,
                        LinkAttribute::LinkNetNsId(netns) => link.peer_netns = Some(netns),
                        LinkAttribute::Group(group) => link.group = group,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(link)
    }
}

fn kind_of(link_info: &[u8]) -> Result<Option<InfoKind>, DecodeError> {
    for attribute in NlasIterator::new(link_info) {
        let attribute = attribute?;
        if attribute.kind() == libc::IFLA_INFO_KIND {
            return InfoKind::parse(&attribute).map(Some);
        }
    }
    Ok(None)
}

fn has_no_link_local(families: &[u8]) -> Result<bool, DecodeError> {
    for family in NlasIterator::new(families) {
        let family = family?;
        if family.kind() != u16::from(u8::from(AddressFamily::Inet6)) {
            continue;
        }
        for attribute in NlasIterator::new(family.value()) {
            let attribute = attribute?;
            if attribute.kind() == IFLA_INET6_ADDR_GEN_MODE {
                return Ok(AfSpecInet6::parse(&attribute)? == AfSpecInet6::AddrGenMode(In6AddrGenMode::None));
            }
        }
    }
    Ok(false)
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn set(what: String, index: u32, attributes: Vec<LinkAttribute>) -> Request {
    Request::new(what, NLM_F_ACK, RouteNetlinkMessage::SetLink(message(index, attributes)))
}

fn set_up(what: String, index: u32, attributes: Vec<LinkAttribute>) -> Request {
    let mut message = message(index, attributes);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new(what, NLM_F_ACK, RouteNetlinkMessage::SetLink(message))
}

/// The values of a new veth pair. A single request creates the pair with all these values, because udev could change
/// the pair before a second request.
pub(crate) struct VethSpec<'a> {
    pub(crate) host_if: &'a str,
    pub(crate) host_mac: [u8; 6],
    pub(crate) container_if: &'a str,
    pub(crate) container_mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    pub(crate) netns: BorrowedFd<'a>,
}

/// The request to create a veth pair. The peer appears in the container's namespace under its final name.
pub(crate) fn create_pair(spec: &VethSpec<'_>) -> Request {
    let peer = message(
        0,
        vec![
            LinkAttribute::IfName(spec.container_if.to_owned()),
            LinkAttribute::Address(spec.container_mac.to_vec()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::NetNsFd(spec.netns.as_raw_fd()),
        ],
    );
    let pair = message(
        0,
        vec![
            LinkAttribute::IfName(spec.host_if.to_owned()),
            LinkAttribute::Address(spec.host_mac.to_vec()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::Group(spec.group),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ],
    );
    let what =
        format!("create the veth pair {} (on the node) and {} (in the container)", spec.host_if, spec.container_if);
    Request::new(what, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(pair))
}

/// The request to set a host link's alias and group, and to stop the kernel from adding an IPv6 link-local address.
pub(crate) fn label(index: u32, alias: &str, group: u32) -> Request {
    let no_link_local = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let attributes = vec![
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::Group(group),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![no_link_local])]),
    ];
    set(format!("set the group and the alias {alias} of link {index}"), index, attributes)
}

/// The same request as [`label`], but for a kernel without IPv6.
pub(crate) fn label_without_ipv6(index: u32, alias: &str, group: u32) -> Request {
    let attributes = vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::Group(group)];
    set(format!("set the group and the alias {alias} of link {index}"), index, attributes)
}

/// The request to bring a link up and set its alias.
pub(crate) fn up_with_alias(index: u32, alias: &str) -> Request {
    set_up(
        format!("bring up link {index} with the alias {alias}"),
        index,
        vec![LinkAttribute::IfAlias(alias.to_owned())],
    )
}

/// The request to bring a link up.
pub(crate) fn up(index: u32) -> Request {
    set_up(format!("bring up link {index}"), index, Vec::new())
}

/// The request to set a link's MAC address.
pub(crate) fn set_mac(index: u32, mac: [u8; 6]) -> Request {
    set(format!("set the MAC address of link {index}"), index, vec![LinkAttribute::Address(mac.to_vec())])
}

/// The request to set a link's alias.
pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    let what = format!("set the alias of link {index} to {alias}");
    set(what, index, vec![LinkAttribute::IfAlias(alias.to_owned())])
}

/// The request to rename a link. Before Linux 6.2 the kernel refuses the request (`EBUSY`) while the link is up.
pub(crate) fn rename(index: u32, name: &str) -> Request {
    set(format!("rename link {index} to {name}"), index, vec![LinkAttribute::IfName(name.to_owned())])
}

/// The request to move a link to another link group.
pub(crate) fn set_group(index: u32, group: u32) -> Request {
    set(format!("move link {index} to group {group}"), index, vec![LinkAttribute::Group(group)])
}

/// Removes a link. The kernel also removes the link's veth peer. Succeeds even if the link does not exist.
pub(crate) fn remove(netlink: &mut Netlink, own_changes: &OwnChanges, index: u32) -> Result<(), KernelError> {
    let delete = RouteNetlinkMessage::DelLink(message(index, Vec::new()));
    own_changes.removing(index);
    let removed = gone_is_success(netlink.send_one(Request::new(format!("remove link {index}"), NLM_F_ACK, delete)));
    own_changes.removed(index);
    removed
}

/// The request to remove all links of a group. The caller must first check that the group contains only links that the
/// caller wants to remove.
pub(crate) fn delete_group(group: u32) -> Request {
    let delete = RouteNetlinkMessage::DelLink(message(0, vec![LinkAttribute::Group(group)]));
    Request::new(format!("remove the links of group {group}"), NLM_F_ACK, delete)
}

/// Looks up a link by its name.
pub(crate) fn by_name(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, KernelError> {
    found(netlink.send_one(get(name)))
}

/// The request to look up a link by its name; [`found`] decodes the answer.
pub(crate) fn get(name: &str) -> Request {
    let get = message(0, vec![LinkAttribute::IfName(name.to_owned())]);
    Request::new(format!("look up link {name}"), 0, RouteNetlinkMessage::GetLink(get))
}

/// The request to look up the link `lo` of the network namespace with this ID; [`found`] decodes the answer.
pub(crate) fn loopback_of(netns: i32) -> Request {
    let get = message(LOOPBACK, vec![LinkAttribute::IfNetnsId(netns)]);
    let what = format!("look up lo in network namespace ID {netns}");
    Request::new(what, 0, RouteNetlinkMessage::GetLink(get))
}

/// Looks up a link by its index.
pub(crate) fn by_index(netlink: &mut Netlink, index: u32) -> Result<Option<Link>, KernelError> {
    let get = RouteNetlinkMessage::GetLink(message(index, Vec::new()));
    found(netlink.send_one(Request::new(format!("look up link {index}"), 0, get)))
}

/// The link in the answer to a lookup, or `None` if no such link exists.
pub(crate) fn found(answer: Answer) -> Result<Option<Link>, KernelError> {
    match answer {
        Ok(replies) => Ok(read_all(&replies, "look up a link")?.into_iter().next()),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists all links in the socket's network namespace.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Link>, KernelError> {
    let replies = netlink.dump("links", &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    read_all(&replies, "list links")
}

fn read_all(replies: &[Reply], what: &str) -> Result<Vec<Link>, KernelError> {
    let links = replies.iter().filter(|reply| reply.kind() == libc::RTM_NEWLINK);
    links.map(|reply| Link::decode(&reply.payload).map_err(KernelError::undecodable(what))).collect()
}
