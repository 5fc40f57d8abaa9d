//! The handle on the node's network that the agent holds: its settings, its sockets and what is under way.
//!
//! Each operation is in the file of its name; this one owns what they share.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bobbin_ipam::AttachmentKey;
use tokio::sync::{Semaphore, watch};

use crate::attachment::{SeenLink, host_name};
use crate::detach::Leaving;
use crate::echoes::Echoes;
use crate::in_place::InPlace;
use crate::netns::{self, Identity, on_thread};
use crate::route::Route;
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink};
use crate::{clash, link, monitor, mtu, route};

/// How many attachments are wired at one time. The kernel does one after another anyway; more would only queue there.
const SIDE_BY_SIDE: usize = 4;
/// Sockets kept for the next request.
const IDLE_SOCKETS: usize = 8;

/// The node's network. Cheap to clone; all clones share everything.
#[derive(Clone)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) home: Identity,
    /// The cookie of the node's namespace; `None`: the kernel tells none.
    pub(crate) cookie: Option<u64>,
    pub(crate) wiring: Arc<Semaphore>,
    /// Host links being made or removed now, which nobody else may repair or take for left over.
    pub(crate) under_way: Mutex<HashMap<String, usize>>,
    pub(crate) in_place: Mutex<InPlace>,
    pub(crate) leaving: Leaving,
    /// The MTU for new pods; 0: not looked up yet.
    pub(crate) mtu: AtomicU32,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) echoes: Arc<Echoes>,
    idle: Mutex<Vec<Netlink>>,
}

/// A lock whose holder panicked still guards whole values: every change under it is a single step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Opens the network of the calling thread's namespace and looks for clashes ([`Network::warnings`]). Changes
    /// nothing.
    pub async fn open(settings: Settings) -> Result<Self, KernelError> {
        settings.check()?;
        let (changed, _) = watch::channel(0);
        on_thread(move || {
            let inner = Inner {
                settings,
                home: netns::current()?,
                cookie: cookie(),
                wiring: Arc::new(Semaphore::new(SIDE_BY_SIDE)),
                under_way: Mutex::default(),
                in_place: Mutex::default(),
                leaving: Leaving::default(),
                mtu: AtomicU32::new(0),
                changed,
                warnings: Mutex::default(),
                echoes: Arc::default(),
                idle: Mutex::default(),
            };
            let network = Self { inner: Arc::new(inner) };
            let clashes = network.inner.with_netlink(|netlink| clash::find(netlink, &network.inner.settings))?;
            *lock(&network.inner.warnings) = clashes;
            monitor::start(&network.inner)?;
            Ok(network)
        })
        .await
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The name that an attachment's link has on the node.
    pub fn host_if(&self, key: &AttachmentKey) -> String {
        host_name(&self.inner.settings, key)
    }

    /// Clashes with other owners of our numbers as last seen (at start and by each [`Network::converge`]), one
    /// sentence each.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.inner.warnings).clone()
    }

    /// A number that grows when links, routes, rules or the filter were changed by somebody else. A hint, coalesced:
    /// answer it with [`Network::converge`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The MTU that pods get now, in bytes.
    pub async fn uplink_mtu(&self, node: Vec<IpAddr>) -> Result<u32, KernelError> {
        let inner = self.inner.clone();
        on_thread(move || inner.with_netlink(|netlink| inner.look_up_mtu(netlink, &node))).await
    }

    /// Our links with their attachments and addresses: what an agent rebuilds itself from.
    pub async fn links(&self) -> Result<Vec<SeenLink>, KernelError> {
        let inner = self.inner.clone();
        on_thread(move || {
            inner.with_netlink(|netlink| {
                let routes = route::list(netlink, inner.settings.pod_table)?;
                Ok(link::list(netlink)?
                    .iter()
                    .filter_map(|link| seen(link, &routes, inner.settings.protocol))
                    .collect())
            })
        })
        .await
    }
}

fn seen(link: &link::Link, routes: &[Route], protocol: u8) -> Option<SeenLink> {
    let key = link.owner()?;
    let mut pair = bobbin_ipam::IpPair::default();
    for route in routes.iter().filter(|route| route.link == Some(link.index) && route.protocol == protocol) {
        match route.to.addr() {
            IpAddr::V4(address) if route.to.prefix_len() == 32 => pair.ipv4 = Some(address),
            IpAddr::V6(address) if route.to.prefix_len() == 128 => pair.ipv6 = Some(address),
            _ => {}
        }
    }
    Some(SeenLink { key, host_if: link.name.clone(), host_index: link.index, pair })
}

/// Without it every attachment counts as in use until its DEL.
fn cookie() -> Option<u64> {
    let cookie = Netlink::route().and_then(|netlink| netlink.netns_cookie());
    cookie.inspect_err(|error| tracing::warn!(%error, "ended network namespaces can't be recognised on this node")).ok()
}

impl Inner {
    /// The names of host links that are being made or removed now.
    pub(crate) fn busy(&self) -> HashSet<String> {
        lock(&self.under_way).keys().cloned().collect()
    }

    /// Runs with a socket of the node's namespace: one that lies idle, or a new one.
    pub(crate) fn with_netlink<T, E: From<KernelError>>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut netlink = self.take_netlink()?;
        let result = work(&mut netlink);
        self.give_back(netlink);
        result
    }

    /// A socket of the node's namespace. To be called before a thread enters another one.
    pub(crate) fn take_netlink(&self) -> Result<Netlink, KernelError> {
        let idle = lock(&self.idle).pop();
        idle.map_or_else(|| Ok(Netlink::route()?.known_to(&self.echoes)), Ok)
    }

    /// Keeps a socket for the next request, unless an answer may still be under way on it.
    pub(crate) fn give_back(&self, netlink: Netlink) {
        let mut idle = lock(&self.idle);
        if !netlink.torn && idle.len() < IDLE_SOCKETS {
            idle.push(netlink);
        }
    }

    /// The MTU for new pods, looked up anew.
    pub(crate) fn look_up_mtu(&self, netlink: &mut Netlink, node: &[IpAddr]) -> Result<u32, KernelError> {
        let mtu = mtu::detect(netlink, &self.settings, node)?;
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(mtu)
    }

    /// The MTU for new pods as last looked up: `converge` and the monitor keep it fresh.
    pub(crate) fn known_mtu(&self, netlink: &mut Netlink, node: &[IpAddr]) -> Result<u32, KernelError> {
        match self.mtu.load(Ordering::Relaxed) {
            0 => self.look_up_mtu(netlink, node),
            mtu => Ok(mtu),
        }
    }
}
