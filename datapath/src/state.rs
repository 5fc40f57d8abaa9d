//! The state that all operations on the node's network share: settings, sockets, and the links that are being changed.

mod in_flight;
mod programmed;
mod removal_queue;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::monitor::Monitor;
use crate::netlink::{KernelError, Netlink, NetlinkThread, OwnChanges, RouteHandle, mtu};
use crate::netns::{self, Identity};
use crate::settings::Settings;
pub(crate) use in_flight::InFlight;
pub(crate) use programmed::ProgrammedState;
pub(crate) use removal_queue::{QueuedRemoval, RemovalQueue};

/// How many attachments the agent wires at the same time. The kernel handles one attachment at a time (RTNL lock), so
/// more threads would only wait.
const MAX_CONCURRENT_ATTACHES: usize = 4;
/// The maximum number of idle netlink sockets that the state keeps for later requests.
const MAX_IDLE_SOCKETS: usize = 8;

/// The state that all operations share. Other modules implement the operations.
pub(crate) struct State {
    pub(crate) settings: Settings,
    /// The node's own network namespace.
    pub(crate) node_netns: Identity,
    /// The cookie of the node's network namespace. `None` if the cookie can't be read.
    pub(crate) netns_cookie: Option<u64>,
    pub(crate) attach_permits: Arc<Semaphore>,
    /// Host links that an operation is creating or removing. No other operation may repair or remove these links.
    pub(crate) in_flight: InFlight,
    pub(crate) programmed: Mutex<ProgrammedState>,
    pub(crate) removal_queue: RemovalQueue,
    /// The MTU for new pods; 0 until it is detected.
    mtu: AtomicU32,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) own_changes: Arc<OwnChanges>,
    /// rtnetlink's handle, for requests that no pod waits for.
    pub(crate) handle: RouteHandle,
    idle_sockets: Mutex<Vec<Netlink>>,
    _monitor: Monitor,
    _thread: NetlinkThread,
}

impl State {
    /// Opens all sockets in the calling thread's namespace.
    pub(crate) fn open(settings: Settings) -> Result<Self, KernelError> {
        let (changed, _) = watch::channel(0);
        let own_changes: Arc<OwnChanges> = Arc::default();
        let thread = NetlinkThread::start("bobbin-netlink")?;
        Ok(Self {
            node_netns: netns::current()?,
            netns_cookie: netns_cookie(),
            attach_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_ATTACHES)),
            in_flight: InFlight::default(),
            programmed: Mutex::default(),
            removal_queue: RemovalQueue::default(),
            mtu: AtomicU32::new(0),
            warnings: Mutex::default(),
            handle: RouteHandle::open(&thread, &own_changes)?,
            idle_sockets: Mutex::default(),
            _monitor: Monitor::start(thread.runtime(), &settings, &own_changes, &changed)?,
            _thread: thread,
            settings,
            changed,
            own_changes,
        })
    }

    /// The names of host links that an operation is creating or removing.
    pub(crate) fn busy_links(&self) -> HashSet<String> {
        self.in_flight.names()
    }

    /// Runs `work` with a netlink socket of the node's namespace. Reuses an idle socket if there is one.
    pub(crate) fn with_netlink<T, E: From<KernelError>>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut netlink = self.take_netlink()?;
        let result = work(&mut netlink);
        self.return_netlink(netlink);
        result
    }

    /// Takes a netlink socket of the node's namespace. The caller must take the socket before its thread enters another
    /// namespace.
    pub(crate) fn take_netlink(&self) -> Result<Netlink, KernelError> {
        let idle = self.idle_sockets.lock().pop();
        idle.map_or_else(|| Ok(Netlink::route()?.registered(&self.own_changes)), Ok)
    }

    /// Keeps a netlink socket for a later request. Closes the socket if a late answer may still arrive on it, or if
    /// enough sockets are idle.
    pub(crate) fn return_netlink(&self, netlink: Netlink) {
        let mut idle = self.idle_sockets.lock();
        if !netlink.broken && idle.len() < MAX_IDLE_SOCKETS {
            idle.push(netlink);
        }
    }

    /// Detects the MTU for new pods.
    pub(crate) fn detect_mtu(&self, netlink: &mut Netlink, node: &[IpAddr]) -> Result<u32, KernelError> {
        let mtu = mtu::detect(netlink, &self.settings, node)?;
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(mtu)
    }

    /// The MTU for new pods, as last detected. Each reconcile pass detects the MTU again.
    pub(crate) fn known_mtu(&self, netlink: &mut Netlink, node: &[IpAddr]) -> Result<u32, KernelError> {
        match self.mtu.load(Ordering::Relaxed) {
            0 => self.detect_mtu(netlink, node),
            mtu => Ok(mtu),
        }
    }
}

/// The cookie of the node's network namespace. Without the cookie, the agent can't use recorded namespace IDs. So it
/// never learns that a container has ended, and every attachment counts as in use until its DEL.
fn netns_cookie() -> Option<u64> {
    let cookie = Netlink::route().and_then(|netlink| netlink.netns_cookie());
    cookie
        .inspect_err(|error| {
            tracing::warn!(%error, "the agent can't read the cookie of the node's network namespace, so it can't tell which containers have ended; only a DEL frees an address");
        })
        .ok()
}
