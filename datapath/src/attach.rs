//! Wires one attachment: a veth pair, both its sides, routes and neighbours; all of it or nothing.
//!
//! Half a millisecond of kernel work: one request makes the pair, one datagram the container's
//! side, one the node's, all from one thread that has entered the container's namespace and then ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::attachment::{Attached, Wiring, alias, host_name, macs};
use crate::container::{self, Side};
use crate::link::{self, Birth};
use crate::neighbour::Neighbour;
use crate::netns::{self, NetnsRef, on_thread};
use crate::network::{Inner, Network, lock};
use crate::route::{self, Route};
use crate::socket::{Ask, KernelError, Netlink};
use crate::{netns_id, sysctl};

/// How long the node's side may take to be able to send once the container's side is up.
const CARRIER: Duration = Duration::from_secs(1);

/// Why an attachment was not wired. Whatever was done is undone.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The container has an interface of that name.
    #[error(
        "interface {name} exists in the container already, so it can't be made for {attachment}; delete it, or use another interface name"
    )]
    InterfaceExists {
        /// The interface's name.
        name: String,
        /// Container ID and interface.
        attachment: String,
    },
    /// The node has the link that this attachment would get.
    #[error("link {host_if} of {attachment} exists on the node already; delete the attachment first")]
    LinkExists {
        /// The link's name.
        host_if: String,
        /// Container ID and interface.
        attachment: String,
    },
    /// The namespace is the node's own.
    #[error(
        "the network namespace given for {0} is the node's own, which Bobbin does not wire; a pod on the host network needs no CNI call"
    )]
    HostNetns(String),
    /// The descriptor is no network namespace (any more).
    #[error("the network namespace of {attachment} is gone: {source}; the runtime has to make a new sandbox")]
    NetnsGone {
        /// Container ID and interface.
        attachment: String,
        /// What the kernel said.
        source: KernelError,
    },
    /// Something else on the node is routed to that address.
    #[error("address {address} is in use on this node: table {table} has a route for it, {by}; it is not overwritten")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// The pods' table.
        table: u32,
        /// The route that is there, and whose it is.
        by: String,
    },
    /// The kernel, or a file below `/proc/sys`, did not do as asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Marks a host link as being worked on for as long as it lives.
pub(crate) struct UnderWay<'a> {
    links: &'a Mutex<HashMap<String, usize>>,
    name: String,
}

impl<'a> UnderWay<'a> {
    pub(crate) fn begin(links: &'a Mutex<HashMap<String, usize>>, name: &str) -> Self {
        *lock(links).entry(name.to_owned()).or_default() += 1;
        Self { links, name: name.to_owned() }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut links = lock(self.links);
        if let Some(count) = links.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                links.remove(&self.name);
            }
        }
    }
}

impl Network {
    /// Wires an attachment into a container's namespace. When it returns, the first packet passes.
    pub async fn attach(&self, wiring: &Wiring, netns: OwnedFd) -> Result<Attached, AttachError> {
        let inner = self.inner.clone();
        let wiring = wiring.clone();
        let turn = inner.wiring.clone().acquire_owned().await;
        on_thread(move || {
            let _turn = turn;
            attach(&inner, &wiring, &netns)
        })
        .await
    }
}

fn attach(inner: &Inner, wiring: &Wiring, netns: &OwnedFd) -> Result<Attached, AttachError> {
    let gone = |source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source };
    if netns::identity(netns).map_err(gone)? == inner.home {
        return Err(AttachError::HostNetns(wiring.key.to_string()));
    }
    let mut netlink = inner.take_netlink()?;
    let host_if = host_name(&inner.settings, &wiring.key);
    let _under_way = UnderWay::begin(&inner.under_way, &host_if);
    let result = create(inner, &mut netlink, wiring, netns, &host_if).and_then(|attached| {
        let finished = finish(inner, &mut netlink, wiring, netns, &attached);
        if finished.is_err()
            && let Err(error) = link::remove(&mut netlink, &inner.echoes, attached.host_index)
        {
            tracing::warn!(%error, link = host_if, "a link of an attachment that failed stays behind until it is swept");
        }
        if finished.is_ok() {
            lock(&inner.in_place).put_pod(wiring);
        }
        finished.map(|()| attached.attached)
    });
    inner.give_back(netlink);
    result
}

/// The pair, with both indices.
struct VethPair {
    attached: Attached,
    host_index: u32,
    container_index: u32,
}

impl std::ops::Deref for VethPair {
    type Target = Attached;
    fn deref(&self) -> &Attached {
        &self.attached
    }
}

fn create(
    inner: &Inner,
    netlink: &mut Netlink,
    wiring: &Wiring,
    netns: &OwnedFd,
    host_if: &str,
) -> Result<VethPair, AttachError> {
    let attachment = || wiring.key.to_string();
    let (host_mac, container_mac) = macs(&wiring.key);
    let mtu = inner.known_mtu(netlink, &node_addresses(wiring))?;
    let birth = Birth {
        host_if,
        host_mac,
        container_if: &wiring.key.if_name,
        container_mac,
        mtu,
        group: inner.settings.link_group,
        netns: netns.as_fd(),
    };
    let (made, id) = match make(netlink, &birth) {
        Ok(made) => made,
        Err(error) => {
            return Err(match error.errno() {
                Some(nix::libc::EEXIST) if link::by_name(netlink, host_if)?.is_some() => {
                    AttachError::LinkExists { host_if: host_if.to_owned(), attachment: attachment() }
                }
                Some(nix::libc::EEXIST) => {
                    AttachError::InterfaceExists { name: wiring.key.if_name.clone(), attachment: attachment() }
                }
                Some(nix::libc::EINVAL | nix::libc::EBADF) if !is_netns(netns) => {
                    AttachError::NetnsGone { attachment: attachment(), source: error }
                }
                _ => {
                    // Without an answer the pair may be there: look, and remove it if it is the one just made.
                    let made = link::by_name(&mut Netlink::route()?, host_if)?;
                    if let Some(made) = made.filter(|made| made.mac == host_mac && made.alias.is_empty()) {
                        link::remove(&mut Netlink::route()?, &inner.echoes, made.index)?;
                    }
                    AttachError::Kernel(error)
                }
            });
        }
    };
    let Some(made) = made else {
        let attachment = attachment();
        let what = format!("find {host_if}, the link just made for {attachment}");
        return Err(KernelError::io(what)(std::io::Error::from_raw_os_error(nix::libc::ENODEV)).into());
    };
    let netns = id.zip(inner.cookie).map(|(id, cookie)| NetnsRef { id, cookie });
    let attached =
        Attached { host_if: host_if.to_owned(), host_index: made.index, host_mac, container_mac, mtu, netns };
    Ok(VethPair { attached, host_index: made.index, container_index: made.peer })
}

/// Makes the pair and looks at it, in one datagram: the host link, and the ID of the container's namespace.
fn make(netlink: &mut Netlink, birth: &Birth<'_>) -> Result<(Option<link::Link>, Option<i32>), KernelError> {
    let asks = vec![
        link::create_pair(birth),
        link::get(birth.host_if),
        netns_id::give(birth.netns),
        netns_id::get(birth.netns),
    ];
    let mut answers = netlink.ask(asks)?.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
    next()?;
    let link = link::found(next())?;
    // Usually the kernel has given an ID already, when it told of the new pair. No ID is no reason to fail an ADD.
    drop(next());
    Ok((link, next().ok().as_deref().and_then(netns_id::read)))
}

fn is_netns(netns: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(netns).is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn finish(
    inner: &Inner,
    netlink: &mut Netlink,
    wiring: &Wiring,
    netns: &OwnedFd,
    pair: &VethPair,
) -> Result<(), AttachError> {
    let settings = &inner.settings;
    let ipv6_dir = settings.sysctl_root.join("ipv6");
    let label = alias(&wiring.key);
    let adopt = if ipv6_dir.exists() { link::adopt } else { link::adopt_without_ipv6 };
    // The node's side first: the side that is opened second can send at once, and that is to be the container's.
    netlink.all(vec![adopt(pair.host_index, &label, settings.link_group), link::up(pair.host_index)])?;
    for (path, value) in host_settings(wiring, &pair.host_if) {
        sysctl::set(&settings.sysctl_root.join(path), value)?;
    }
    netns::enter(netns).map_err(|source| AttachError::NetnsGone { attachment: wiring.key.to_string(), source })?;
    let side = Side {
        container_id: &wiring.key.container_id,
        if_name: &wiring.key.if_name,
        index: pair.container_index,
        pair: wiring.pair,
        host_mac: pair.host_mac,
        protocol: settings.protocol,
    };
    let mut inside = container::wire(&side, &settings.sysctl_root)?;
    let (routes, asks) = host_side(inner, wiring, pair.host_index, pair.container_mac);
    let answers = netlink.ask(asks)?;
    for (index, answer) in answers.into_iter().enumerate() {
        match (answer, routes.get(index)) {
            (Err(error), Some(route)) if error.errno() == Some(nix::libc::EEXIST) => {
                return Err(in_use(inner, netlink, route)?);
            }
            (answer, _) => drop(answer?),
        }
    }
    await_carrier(netlink, pair.host_index)?;
    container::await_addresses(&mut inside, wiring.pair)?;
    Ok(())
}

/// Settings of a host link, below the root: `(path, value)`.
pub(crate) fn host_settings(wiring: &Wiring, host_if: &str) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    if wiring.pair.ipv4.is_some() {
        settings.push((format!("ipv4/conf/{host_if}/proxy_arp"), "0"));
        settings.push((format!("ipv4/conf/{host_if}/forwarding"), "1"));
    }
    if wiring.pair.ipv6.is_some() {
        settings.push((format!("ipv6/conf/{host_if}/disable_ipv6"), "0"));
        settings.push((format!("ipv6/conf/{host_if}/forwarding"), "1"));
    }
    settings
}

/// The pod's routes on the node.
pub(crate) fn host_routes(inner: &Inner, wiring: &Wiring, index: u32) -> Vec<Route> {
    let settings = &inner.settings;
    wiring
        .pair
        .addresses()
        .map(|own| {
            let source = match own {
                IpAddr::V4(_) => wiring.node_ipv4.map(IpAddr::V4),
                IpAddr::V6(_) => wiring.node_ipv6.map(IpAddr::V6),
            };
            Route::to_pod(settings.pod_table, settings.protocol, own, index, source)
        })
        .collect()
}

fn host_side(inner: &Inner, wiring: &Wiring, index: u32, container_mac: [u8; 6]) -> (Vec<Route>, Vec<Ask>) {
    let routes = host_routes(inner, wiring, index);
    let mut asks: Vec<Ask> = routes.iter().map(Route::add).collect();
    asks.extend(wiring.pair.addresses().map(|own| Neighbour::permanent(index, own, container_mac).set()));
    (routes, asks)
}

/// Who holds the place of a route.
fn in_use(inner: &Inner, netlink: &mut Netlink, wanted: &Route) -> Result<AttachError, KernelError> {
    let there = route::list(netlink, wanted.table)?.into_iter().find(|seen| seen.same_place(wanted));
    let by = match there {
        None => "gone again by now: try again".to_owned(),
        Some(seen) => {
            let link = seen.link.map(|index| link::by_index(netlink, index)).transpose()?.flatten();
            let over = link.map_or_else(
                || "no link".to_owned(),
                |link| {
                    if link.alias.is_empty() { link.name } else { format!("{} ({})", link.name, link.alias) }
                },
            );
            let whose = if seen.protocol == inner.settings.protocol { "Bobbin's own" } else { "another program's" };
            format!("{whose} (protocol {}) over {over}", seen.protocol)
        }
    };
    Ok(AttachError::AddressInUse { address: wanted.to.addr(), table: wanted.table, by })
}

/// The kernel activates the side that was opened first from a work queue, usually before we look.
fn await_carrier(netlink: &mut Netlink, index: u32) -> Result<(), KernelError> {
    let start = Instant::now();
    while start.elapsed() < CARRIER {
        match link::by_index(netlink, index)? {
            Some(link) if !link.can_send() => std::thread::sleep(Duration::from_micros(50)),
            Some(_) => return Ok(()),
            None => {
                let gone = std::io::Error::from_raw_os_error(nix::libc::ENODEV);
                return Err(KernelError::io("keep the link just made: somebody removed it")(gone));
            }
        }
    }
    Ok(())
}

/// The node's own addresses.
pub(crate) fn node_addresses(wiring: &Wiring) -> Vec<IpAddr> {
    wiring.node_ipv4.map(IpAddr::V4).into_iter().chain(wiring.node_ipv6.map(IpAddr::V6)).collect()
}
