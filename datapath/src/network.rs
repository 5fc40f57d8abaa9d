//! [`Network`], the agent's handle on the node's network. Each operation runs on a thread in the node's namespace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bobbin_ipam::{AttachmentKey, BlockRange, IpPair};
use tokio::sync::watch;

use crate::conflicts;
use crate::names::host_name;
use crate::netlink::link::{self, Link};
use crate::netlink::route::{self, Route};
use crate::netlink::{KernelError, Netlink};
use crate::netns::{NetnsRef, on_thread};
use crate::node::{DesiredState, Drift, OccupiedNet, export, occupied, reconcile, setup};
use crate::pod::{
    AttachError, Attached, Mismatch, NetnsPresence, ObservedLink, Wiring, attach, check, detach, presence,
};
use crate::settings::Settings;
use crate::state::State;

/// The agent's handle on the node's network. Clones are cheap and share all state.
#[derive(Clone)]
pub struct Network {
    state: Arc<State>,
}

impl Network {
    /// Opens the network of the calling thread's namespace, and looks for conflicts with other programs
    /// ([`Network::warnings`]). Opening changes nothing on the node.
    pub async fn open(settings: Settings) -> Result<Self, KernelError> {
        settings.check()?;
        on_thread(move || {
            let state = State::open(settings)?;
            state.with_netlink(|netlink| {
                conflicts::update(netlink, &state);
                Ok(())
            })?;
            Ok(Self { state: Arc::new(state) })
        })
        .await
    }

    /// Runs `work` on a new thread, with a netlink socket of the node's namespace.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State, &mut Netlink) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let state = self.state.clone();
        on_thread(move || state.with_netlink(|netlink| work(&state, netlink))).await
    }

    /// The settings with which the agent opened the network.
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// The name of the attachment's link on the node.
    pub fn host_if(&self, key: &AttachmentKey) -> String {
        host_name(&self.state.settings, key)
    }

    /// Conflicts with other programs, one sentence each, as [`Network::open`] or the last [`Network::reconcile`] found
    /// them.
    pub fn warnings(&self) -> Vec<String> {
        self.state.warnings.lock().clone()
    }

    /// A counter that grows when another program may have changed links, routes, rules or the filter. One increment may
    /// cover many changes. After an increment, the caller should call [`Network::reconcile`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.state.changed.subscribe()
    }

    /// Detects the MTU for new pods, in bytes. `node` holds the node's own addresses.
    pub async fn uplink_mtu(&self, node: Vec<IpAddr>) -> Result<u32, KernelError> {
        self.run(move |state, netlink| state.detect_mtu(netlink, &node)).await
    }

    /// The host links of Bobbin's attachments, each with the addresses of its attachment. A restarted agent restores
    /// its state from this list.
    pub async fn links(&self) -> Result<Vec<ObservedLink>, KernelError> {
        self.run(|state, netlink| {
            let routes = route::list(netlink, state.settings.pod_table)?;
            let links = link::list(netlink)?;
            Ok(links.iter().filter_map(|link| observed(link, &routes, state.settings.protocol)).collect())
        })
        .await
    }

    /// Wires an attachment into a container's namespace. When this call returns, even the pod's first packet gets
    /// through.
    pub async fn attach(&self, wiring: &Wiring, netns: OwnedFd) -> Result<Attached, AttachError> {
        let state = self.state.clone();
        let wiring = wiring.clone();
        let permit = state.attach_permits.clone().acquire_owned().await;
        on_thread(move || {
            let _permit = permit;
            attach::attach(&state, &wiring, &netns)
        })
        .await
    }

    /// Unwires an attachment: removes routes and neighbours first, then the link. Idempotent. Another
    /// program may have changed the link's name or alias: the link is found all the same. Other links are not touched.
    pub async fn detach(&self, key: &AttachmentKey, pair: IpPair) -> Result<(), KernelError> {
        detach::detach(&self.state, key, pair).await
    }

    /// Compares an attachment with the state that [`Network::attach`] created, on the node and in the container.
    /// Returns the differences.
    pub async fn check(&self, wiring: &Wiring, netns: OwnedFd) -> Result<Vec<Mismatch>, AttachError> {
        let state = self.state.clone();
        let wiring = wiring.clone();
        on_thread(move || check::check(&state, &wiring, &netns)).await
    }

    /// Returns what is left of each attachment on the node. If the host link is gone and the [`NetnsRef`] is missing or
    /// invalid, the result is [`NetnsPresence::Unknown`].
    ///
    /// # Errors
    /// Fails if the node's links or routes can't be listed. The caller must then treat every attachment as in use.
    pub async fn presence(
        &self,
        asked: Vec<(AttachmentKey, Option<NetnsRef>)>,
    ) -> Result<HashMap<AttachmentKey, NetnsPresence>, KernelError> {
        self.run(move |state, netlink| presence::presence(state, netlink, asked)).await
    }

    /// Exports a block to routing daemons. Idempotent. Fails if another program has a route with the same table, prefix
    /// and metric.
    pub async fn export(&self, block: &BlockRange) -> Result<(), KernelError> {
        let (state, block) = (self.state.clone(), *block);
        on_thread(move || export::export(&state, block)).await
    }

    /// Removes the routes of a block, the exported route first. Idempotent.
    pub async fn withdraw(&self, block: &BlockRange) -> Result<(), KernelError> {
        let (state, block) = (self.state.clone(), *block);
        on_thread(move || export::withdraw(&state, &block)).await
    }

    /// Lists the networks that the node itself uses. A block must not contain addresses of these networks.
    pub async fn occupied(&self) -> Result<Vec<OccupiedNet>, KernelError> {
        self.run(|_, netlink| occupied::list(netlink)).await
    }

    /// Prepares the node for pods of these address families, and returns the changes. Idempotent, and safe to call
    /// concurrently.
    pub async fn set_up(&self, ipv4: bool, ipv6: bool) -> Result<Vec<Drift>, KernelError> {
        self.run(move |state, netlink| setup::set_up(state, netlink, ipv4, ipv6)).await
    }

    /// For an uninstall, removes the filter, the rules, and Bobbin's routes in the export, pod and main tables. Does
    /// not remove links. If the kernel refuses a removal, the method continues, and fails at the end with all refusals.
    /// Otherwise, returns one sentence for each removed object.
    pub async fn tear_down(&self) -> Result<Vec<String>, KernelError> {
        self.run(setup::tear_down).await
    }

    /// Makes the node match the desired state, and returns the differences found. A missing link is only reported,
    /// because only an ADD can create a link. Skips links that another operation is creating or removing.
    ///
    /// # Errors
    /// Fails if the node's state can't be read. A failed repair is not an error: the method returns it as a drift.
    pub async fn reconcile(&self, desired: &DesiredState) -> Result<Vec<Drift>, KernelError> {
        let desired = desired.clone();
        self.run(move |state, netlink| reconcile::reconcile(state, netlink, &desired)).await
    }
}

fn observed(link: &Link, routes: &[Route], protocol: u8) -> Option<ObservedLink> {
    let key = link.owner()?;
    let mut pair = IpPair::default();
    for route in routes.iter().filter(|route| route.link == Some(link.index) && route.protocol == protocol) {
        match route.to.addr() {
            IpAddr::V4(address) if route.to.prefix_len() == 32 => pair.ipv4 = Some(address),
            IpAddr::V6(address) if route.to.prefix_len() == 128 => pair.ipv6 = Some(address),
            _ => {}
        }
    }
    Some(ObservedLink { key, host_if: link.name.clone(), host_index: link.index, pair })
}
