//! Links: the veth pair of an attachment, what a dump shows of links, and their removal by index or group.

use std::os::fd::{AsRawFd, BorrowedFd};

use bobbin_ipam::AttachmentKey;

use crate::attachment::key_of_alias;
use crate::echoes::Echoes;
use crate::message::{ACK, CREATE, EXCL, Message, ROOT_DUMP, Reply, attributes, text_of, u32_at};
use crate::socket::{Ask, KernelError, Netlink, gone_is_fine};

const NEW: u16 = 16;
const DELETE: u16 = 17;
const GET: u16 = 18;
const SET: u16 = 19;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const QDISC: u16 = 6;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const FAMILIES: u16 = 26;
const GROUP: u16 = 27;
const NAMESPACE: u16 = 28;
const PEER_NETNS: u16 = 37;
const TARGET_NETNS: u16 = 46;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const INET6: u16 = 10;
const INET6_ADDRESS_MODE: u16 = 8;
const UP: u32 = 1;

/// The loopback link's index, in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A link as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
    pub(crate) peer: u32,
    /// The ID of the peer's namespace, if that is another one.
    pub(crate) peer_netns: Option<i32>,
    pub(crate) group: u32,
    pub(crate) up: bool,
    pub(crate) alias: String,
    pub(crate) kind: String,
    pub(crate) qdisc: String,
    pub(crate) keeps_no_link_local: bool,
}

impl Link {
    /// Whether the alias says that the link is ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner().is_some()
    }

    /// The attachment that the alias names.
    pub(crate) fn owner(&self) -> Option<AttachmentKey> {
        if self.kind == "veth" { key_of_alias(&self.alias) } else { None }
    }

    /// Whether packets can leave: its queue is in place, not the placeholder of a link without carrier.
    pub(crate) fn can_send(&self) -> bool {
        self.qdisc != "noop"
    }

    /// Reads a link message.
    pub(crate) fn read(reply: &Reply) -> Option<Self> {
        let body = (reply.kind == NEW || reply.kind == DELETE).then_some(&reply.payload)?;
        let mut link = Self { index: u32_at(body, 4), up: u32_at(body, 8) & UP != 0, ..Self::default() };
        for (kind, value) in attributes(body.get(16..)?) {
            match kind {
                ADDRESS => link.mac = value.to_vec(),
                NAME => link.name = text_of(value),
                MTU => link.mtu = u32_at(value, 0),
                LINK => link.peer = u32_at(value, 0),
                PEER_NETNS => link.peer_netns = Some(i32::from_ne_bytes(u32_at(value, 0).to_ne_bytes())),
                QDISC => link.qdisc = text_of(value),
                GROUP => link.group = u32_at(value, 0),
                ALIAS => link.alias = text_of(value),
                INFO => {
                    let found = attributes(value).into_iter().find(|(kind, _)| *kind == INFO_KIND);
                    link.kind = found.map(|(_, kind)| text_of(kind)).unwrap_or_default();
                }
                FAMILIES => {
                    let inet6 = attributes(value).into_iter().find(|(kind, _)| *kind == INET6);
                    link.keeps_no_link_local = inet6.is_some_and(|(_, inside)| {
                        attributes(inside).into_iter().any(|(kind, value)| kind == INET6_ADDRESS_MODE && value == [1])
                    });
                }
                _ => {}
            }
        }
        Some(link)
    }
}

fn fixed(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// How a veth pair is born: nothing about it is changed by a later request that udev could race.
pub(crate) struct Birth<'a> {
    pub(crate) host_if: &'a str,
    pub(crate) host_mac: [u8; 6],
    pub(crate) container_if: &'a str,
    pub(crate) container_mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    pub(crate) netns: BorrowedFd<'a>,
}

/// Makes the pair, the peer in the container's namespace under its final name.
pub(crate) fn create_pair(birth: &Birth<'_>) -> Ask {
    let message = Message::new(NEW, ACK | CREATE | EXCL, &fixed(0, 0, 0))
        .text(NAME, birth.host_if)
        .attr(ADDRESS, &birth.host_mac)
        .u32(MTU, birth.mtu)
        .u32(GROUP, birth.group)
        .nest(INFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest_after(VETH_PEER, &fixed(0, 0, 0), |peer| {
                    peer.text(NAME, birth.container_if)
                        .attr(ADDRESS, &birth.container_mac)
                        .u32(MTU, birth.mtu)
                        .attr(NAMESPACE, &birth.netns.as_raw_fd().to_ne_bytes())
                })
            })
        });
    Ask::new(format!("create {} for {}", birth.host_if, birth.container_if), message)
}

/// Sets what makes a host link ours and quiet: alias, group, no link-local address.
pub(crate) fn adopt(index: u32, alias: &str, group: u32) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0))
        .attr(ALIAS, alias.as_bytes())
        .u32(GROUP, group)
        .nest(FAMILIES, |families| families.nest(INET6, |inet6| inet6.attr(INET6_ADDRESS_MODE, &[1])));
    Ask::new(format!("label link {index} {alias}"), message)
}

/// The same without IPv6, for kernels that run without it.
pub(crate) fn adopt_without_ipv6(index: u32, alias: &str, group: u32) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0)).attr(ALIAS, alias.as_bytes()).u32(GROUP, group);
    Ask::new(format!("label link {index} {alias}"), message)
}

/// Brings a link up and labels it.
pub(crate) fn up_as(index: u32, alias: &str) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, UP, UP)).attr(ALIAS, alias.as_bytes());
    Ask::new(format!("bring up link {index} as {alias}"), message)
}

/// Brings a link up.
pub(crate) fn up(index: u32) -> Ask {
    Ask::new(format!("bring up link {index}"), Message::new(SET, ACK, &fixed(index, UP, UP)))
}

/// Sets a link's MAC address.
pub(crate) fn set_mac(index: u32, mac: [u8; 6]) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0)).attr(ADDRESS, &mac);
    Ask::new(format!("set the MAC address of link {index}"), message)
}

/// Sets a link's alias.
pub(crate) fn set_alias(index: u32, alias: &str) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0)).attr(ALIAS, alias.as_bytes());
    Ask::new(format!("set the alias of link {index} to {alias}"), message)
}

/// Renames a link; `EBUSY` before Linux 6.2 while it is up.
pub(crate) fn rename(index: u32, name: &str) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0)).text(NAME, name);
    Ask::new(format!("rename link {index} to {name}"), message)
}

/// Moves a link to another group.
pub(crate) fn set_group(index: u32, group: u32) -> Ask {
    let message = Message::new(SET, ACK, &fixed(index, 0, 0)).u32(GROUP, group);
    Ask::new(format!("move link {index} to group {group}"), message)
}

/// Removes one link, and with it its peer.
fn delete(index: u32) -> Ask {
    Ask::new(format!("remove link {index}"), Message::new(DELETE, ACK, &fixed(index, 0, 0)))
}

/// Removes one link of ours; one that is gone already is fine.
pub(crate) fn remove(netlink: &mut Netlink, echoes: &Echoes, index: u32) -> Result<(), KernelError> {
    let delete = delete(index);
    echoes.removing(index);
    let removed = gone_is_fine(netlink.one(delete.what, delete.message));
    echoes.removed(index);
    removed
}

/// Removes all links of a group: the caller has looked that all of them are to go.
pub(crate) fn delete_group(group: u32) -> Ask {
    let message = Message::new(DELETE, ACK, &fixed(0, 0, 0)).u32(GROUP, group);
    Ask::new(format!("remove the links of group {group}"), message)
}

/// The link of a name, or `None`.
pub(crate) fn by_name(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, KernelError> {
    let ask = get(name);
    found(netlink.one(ask.what, ask.message))
}

/// Asks for the link of a name; [`found`] reads the answer.
pub(crate) fn get(name: &str) -> Ask {
    Ask::new(format!("look for link {name}"), Message::new(GET, 0, &fixed(0, 0, 0)).text(NAME, name))
}

/// Asks for the `lo` of the namespace that an ID leads to.
pub(crate) fn loopback_of(netns: i32) -> Ask {
    let message = Message::new(GET, 0, &fixed(LOOPBACK, 0, 0)).attr(TARGET_NETNS, &netns.to_ne_bytes());
    Ask::new(format!("look at lo in network namespace ID {netns}"), message)
}

/// The link of an index, or `None`.
pub(crate) fn by_index(netlink: &mut Netlink, index: u32) -> Result<Option<Link>, KernelError> {
    found(netlink.one(format!("look for link {index}"), Message::new(GET, 0, &fixed(index, 0, 0))))
}

/// The link in an answer, or `None` when there is none.
pub(crate) fn found(answer: Result<Vec<Reply>, KernelError>) -> Result<Option<Link>, KernelError> {
    match answer {
        Ok(list) => Ok(list.first().and_then(Link::read)),
        Err(error) if error.errno() == Some(nix::libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Link>, KernelError> {
    let message = Message::new(GET, ROOT_DUMP, &fixed(0, 0, 0));
    Ok(netlink.dump("links", &message)?.iter().filter_map(Link::read).collect())
}
