//! Wires an attachment: creates the veth pair and configures both sides. If a step fails, undoes all earlier steps.
//!
//! One request creates the pair, one datagram wires the container's side, and another wires the node's side. One
//! short-lived thread, which enters the container's namespace, sends all of them. The kernel needs about half a
//! millisecond for all requests.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;

use crate::names::{alias, host_name, macs};
use crate::netlink::link::{self, VethSpec};
use crate::netlink::neighbour::Neighbour;
use crate::netlink::route::{self, Route};
use crate::netlink::{KernelError, Netlink, Request, netns_id};
use crate::netns::{self, NetnsRef};
use crate::pod::attachment::{Attached, Wiring};
use crate::pod::container::{self, ContainerSide};
use crate::pod::host_link::{routes, sysctls};
use crate::state::State;
use crate::sysctl;

/// After the container's side has come up, an ADD waits at most this long until the host link can send.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(1);
const CARRIER_POLL_INTERVAL: Duration = Duration::from_micros(50);

/// Why an attachment was not wired. All steps before the failure were undone.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The container already has an interface with the requested name.
    #[error(
        "the container of {attachment} already has an interface {name}; delete that interface, or configure another interface name"
    )]
    InterfaceExists {
        /// The name of the existing interface.
        name: String,
        /// The attachment: container ID and interface name.
        attachment: String,
    },
    /// The node already has a link with the name of this attachment's host link.
    #[error(
        "link {host_if} of {attachment} already exists on the node; the runtime must send a DEL before it repeats the ADD"
    )]
    LinkExists {
        /// The name of the existing link.
        host_if: String,
        /// The attachment: container ID and interface name.
        attachment: String,
    },
    /// The given network namespace is the node's own.
    #[error(
        "the runtime passed the node's own network namespace for {0}. Bobbin never wires pods into that namespace; a pod on the host network needs no CNI call"
    )]
    HostNetns(String),
    /// The given descriptor does not refer to a network namespace, or the namespace has ended.
    #[error("the network namespace of {attachment} is gone: {source}; the runtime must create a new sandbox")]
    NetnsGone {
        /// The attachment: container ID and interface name.
        attachment: String,
        /// The kernel's error.
        source: KernelError,
    },
    /// The node already has a route to one of the pod's addresses.
    #[error("address {address} is in use on this node: the kernel has a route to it in table {table}, {by}")]
    AddressInUse {
        /// The pod's address to which a route exists.
        address: IpAddr,
        /// The routing table of the pods' routes.
        table: u32,
        /// Which program added the existing route, and over which link.
        by: String,
    },
    /// The kernel refused a request, or a file below `/proc/sys` could not be written.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Wires an attachment. When this function returns, even the pod's first packet gets through.
pub(crate) fn attach(state: &State, wiring: &Wiring, netns: &OwnedFd) -> Result<Attached, AttachError> {
    let gone = |source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source };
    if netns::identity(netns).map_err(gone)? == state.node_netns {
        return Err(AttachError::HostNetns(wiring.key.to_string()));
    }
    let mut netlink = state.take_netlink()?;
    let host_if = host_name(&state.settings, &wiring.key);
    let _in_flight = state.in_flight.begin(&host_if);
    let result = create(state, &mut netlink, wiring, netns, &host_if).and_then(|pair| {
        let finished = finish(state, &mut netlink, wiring, netns, &pair);
        if finished.is_err()
            && let Err(error) = link::remove(&mut netlink, &state.own_changes, pair.attached.host_index)
        {
            tracing::warn!(%error, link = host_if, "the agent could not remove the link of a failed ADD; the link stays until the agent detaches the attachment");
        }
        if finished.is_ok() {
            state.programmed.lock().put_pod(wiring);
        }
        finished.map(|()| pair.attached)
    });
    state.return_netlink(netlink);
    result
}

/// A veth pair that this ADD created.
struct VethPair {
    attached: Attached,
    container_index: u32,
}

fn create(
    state: &State,
    netlink: &mut Netlink,
    wiring: &Wiring,
    netns: &OwnedFd,
    host_if: &str,
) -> Result<VethPair, AttachError> {
    let attachment = || wiring.key.to_string();
    let (host_mac, container_mac) = macs(&wiring.key);
    let mtu = state.known_mtu(netlink, &wiring.node_addresses())?;
    let spec = VethSpec {
        host_if,
        host_mac,
        container_if: &wiring.key.if_name,
        container_mac,
        mtu,
        group: state.settings.link_group,
        netns: netns.as_fd(),
    };
    let (created, id) = match create_pair(netlink, &spec) {
        Ok(created) => created,
        Err(error) => {
            return Err(match error.errno() {
                Some(libc::EEXIST) if link::by_name(netlink, host_if)?.is_some() => {
                    AttachError::LinkExists { host_if: host_if.to_owned(), attachment: attachment() }
                }
                Some(libc::EEXIST) => {
                    AttachError::InterfaceExists { name: wiring.key.if_name.clone(), attachment: attachment() }
                }
                Some(libc::EINVAL | libc::EBADF) if !is_netns(netns) => {
                    AttachError::NetnsGone { attachment: attachment(), source: error }
                }
                _ => {
                    // After an error without an answer, the pair may exist. Remove the link with this name only if its
                    // MAC address and missing alias show that this ADD created it.
                    let found = link::by_name(&mut Netlink::route()?, host_if)?;
                    if let Some(pair) = found.filter(|pair| pair.mac == host_mac && pair.alias.is_empty()) {
                        link::remove(&mut Netlink::route()?, &state.own_changes, pair.index)?;
                    }
                    AttachError::Kernel(error)
                }
            });
        }
    };
    let Some(created) = created else {
        let attachment = attachment();
        let what = format!("find {host_if}, the link just created for {attachment}");
        return Err(KernelError::io(what)(std::io::Error::from_raw_os_error(libc::ENODEV)).into());
    };
    let netns = id.zip(state.netns_cookie).map(|(id, cookie)| NetnsRef { id, cookie });
    let attached =
        Attached { host_if: host_if.to_owned(), host_index: created.index, host_mac, container_mac, mtu, netns };
    Ok(VethPair { attached, container_index: created.peer })
}

/// Creates the veth pair, and reads the host link and the ID of the container's namespace, all in one datagram.
fn create_pair(netlink: &mut Netlink, spec: &VethSpec<'_>) -> Result<(Option<link::Link>, Option<i32>), KernelError> {
    let requests =
        vec![link::create_pair(spec), link::get(spec.host_if), netns_id::assign(spec.netns), netns_id::get(spec.netns)];
    let mut answers = netlink.send(requests)?.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
    next()?;
    let link = link::found(next())?;
    // Ignore the answer to `assign`. It is usually `EEXIST`, because the kernel assigned an ID when it announced the
    // new pair. If `assign` fails with another error, the ADD succeeds without the ID.
    drop(next());
    Ok((link, next().ok().as_deref().and_then(netns_id::read)))
}

fn is_netns(netns: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(netns).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn finish(
    state: &State,
    netlink: &mut Netlink,
    wiring: &Wiring,
    netns: &OwnedFd,
    pair: &VethPair,
) -> Result<(), AttachError> {
    let settings = &state.settings;
    let Attached { host_if, host_index, host_mac, container_mac, .. } = &pair.attached;
    let host_index = *host_index;
    let ipv6_dir = settings.sysctl_root.join("ipv6");
    let alias = alias(&wiring.key);
    let label = if ipv6_dir.exists() { link::label } else { link::label_without_ipv6 };
    // Bring up the node's side first. The side that comes up second can send at once, and that should be the
    // container's side.
    netlink.send_all(vec![label(host_index, &alias, settings.link_group), link::up(host_index)])?;
    for (path, value) in sysctls(wiring, host_if) {
        sysctl::set(&settings.sysctl_root.join(path), value)?;
    }
    netns::enter(netns).map_err(|source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source })?;
    let side = ContainerSide {
        container_id: &wiring.key.container_id,
        if_name: &wiring.key.if_name,
        index: pair.container_index,
        pair: wiring.pair,
        host_mac: *host_mac,
        protocol: settings.protocol,
    };
    let mut inside = container::wire(&side, &settings.sysctl_root)?;
    let (routes, requests) = host_side(state, wiring, host_index, *container_mac);
    let answers = netlink.send(requests)?;
    for (index, answer) in answers.into_iter().enumerate() {
        match (answer, routes.get(index)) {
            (Err(error), Some(route)) if error.errno() == Some(libc::EEXIST) => {
                return Err(in_use(state, netlink, route)?);
            }
            (answer, _) => drop(answer?),
        }
    }
    await_carrier(netlink, host_index)?;
    container::await_addresses(&mut inside, wiring.pair)?;
    Ok(())
}

fn host_side(state: &State, wiring: &Wiring, index: u32, container_mac: [u8; 6]) -> (Vec<Route>, Vec<Request>) {
    let routes = routes(&state.settings, wiring, index);
    let mut requests: Vec<Request> = routes.iter().map(Route::add).collect();
    requests.extend(wiring.pair.addresses().map(|own| Neighbour::permanent(index, own, container_mac).set()));
    (routes, requests)
}

/// Describes the existing route that conflicts with the wanted route to the pod.
fn in_use(state: &State, netlink: &mut Netlink, wanted: &Route) -> Result<AttachError, KernelError> {
    let there = route::list(netlink, wanted.table)?.into_iter().find(|seen| seen.has_same_key(wanted));
    let by = match there {
        None => "but the route is gone by now, so the runtime can repeat the ADD".to_owned(),
        Some(seen) => {
            let link = seen.link.map(|index| link::by_index(netlink, index)).transpose()?.flatten();
            let over = link.map_or_else(
                || "no link".to_owned(),
                |link| {
                    if link.alias.is_empty() { link.name } else { format!("{} ({})", link.name, link.alias) }
                },
            );
            let program = if seen.protocol == state.settings.protocol { "Bobbin" } else { "another program" };
            format!("added by {program} (protocol {}) over {over}. Bobbin does not overwrite this route", seen.protocol)
        }
    };
    Ok(AttachError::AddressInUse { address: wanted.to.addr(), table: wanted.table, by })
}

/// Waits until the host link can send. After the container's side has come up, a work queue of the kernel activates the
/// host link, usually before the first poll.
fn await_carrier(netlink: &mut Netlink, index: u32) -> Result<(), KernelError> {
    let start = Instant::now();
    while start.elapsed() < CARRIER_TIMEOUT {
        match link::by_index(netlink, index)? {
            Some(link) if !link.can_send() => std::thread::sleep(CARRIER_POLL_INTERVAL),
            Some(_) => return Ok(()),
            None => {
                let gone = std::io::Error::from_raw_os_error(libc::ENODEV);
                return Err(KernelError::io("use the link just created, because another program removed it")(gone));
            }
        }
    }
    Ok(())
}
