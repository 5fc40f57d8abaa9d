//! The values that the checker collected, and that the rules compare. They are the API objects, and for each machine
//! its kernel state, its checkpoint and its pods' network namespaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bobbin_ipam::AttachmentKey;
use ipnet::IpNet;

/// A snapshot of a whole cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The API objects; `None` if the API server did not answer.
    pub api: Option<ApiObjects>,
    /// The machines that have power and could be read, ordered by name.
    pub machines: Vec<Machine>,
    /// One sentence for each source that could not be read.
    pub unread: Vec<String>,
}

/// The objects of the API server.
#[derive(Clone, Debug, Default)]
pub struct ApiObjects {
    /// All pools.
    pub pools: Vec<Pool>,
    /// All blocks.
    pub blocks: Vec<Block>,
    /// All assignments.
    pub assignments: Vec<Assignment>,
    /// All pods.
    pub pods: Vec<Pod>,
    /// The UID of each Node, keyed by its name.
    pub nodes: BTreeMap<String, String>,
}

impl ApiObjects {
    /// The pods that have not ended, do not use their node's network, and have an existing Node. A pod object may stay for
    /// up to a minute after the deletion of its Node, so it does not prove that the pod lives.
    pub fn living_pods(&self) -> impl Iterator<Item = &Pod> {
        let has_node = |pod: &&Pod| pod.node.as_ref().is_some_and(|node| self.nodes.contains_key(node));
        self.pods.iter().filter(|pod| !pod.host_network && !pod.ended).filter(has_node)
    }
}

/// A pool and its status.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// The pool's name.
    pub name: String,
    /// Whether the status describes the current spec.
    pub status_is_current: bool,
    /// A block has 2^`block_size_bits` addresses.
    pub block_size_bits: u32,
    /// The entries of `status.acceptedSubnets` that have the state `Accepted`, in order.
    pub accepted: Vec<AcceptedSubnet>,
    /// The counts of `status.addresses`, keyed by family.
    pub counts: BTreeMap<&'static str, AddressCounts>,
    /// `status.used`.
    pub used: i64,
    /// `status.free`.
    pub free: i64,
    /// `status.blocks.claimed`.
    pub claimed_blocks: i64,
}

/// An accepted entry of a pool.
#[derive(Clone, Debug, Default)]
pub struct AcceptedSubnet {
    /// The entry's CIDRs, at most one of each family.
    pub ranges: Vec<IpNet>,
    /// The index of the entry's first block, if the status contains it.
    pub first_index: Option<u64>,
}

/// The counts of one family.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressCounts {
    /// All addresses.
    pub total: i64,
    /// Addresses that are never assigned.
    pub reserved: i64,
    /// Addresses with an assignment.
    pub assigned: i64,
    /// Addresses in their cool-down.
    pub cooling: i64,
    /// Addresses that can be assigned.
    pub free: i64,
}

/// A block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// The block's name.
    pub name: String,
    /// The block's pool.
    pub pool: String,
    /// The block's CIDRs, at most one of each family.
    pub ranges: Vec<IpNet>,
    /// The node that has claimed the block.
    pub node: Option<String>,
    /// The UID of that node.
    pub node_uid: Option<String>,
}

impl Block {
    /// Whether an address lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

/// A pod's namespace, name and UID. If a field is empty, its value is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodId {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
}

/// An assignment.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The assignment's name.
    pub name: String,
    /// The assignment's pool.
    pub pool: String,
    /// The assignment's block.
    pub block: String,
    /// The assignment's node.
    pub node: String,
    /// The assigned addresses.
    pub addresses: Vec<IpAddr>,
    /// The attachment that holds the addresses.
    pub attachment: AttachmentKey,
    /// The pod of the attachment.
    pub pod: PodId,
}

/// A pod object.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// The pod's namespace, name and UID. A static pod has the UID that its kubelet gave it.
    pub id: PodId,
    /// The pod's node.
    pub node: Option<String>,
    /// The addresses in the pod's status.
    pub addresses: Vec<IpAddr>,
    /// Whether the pod uses its node's network.
    pub host_network: bool,
    /// Whether all containers have ended for good.
    pub ended: bool,
}

/// A machine that has power.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The machine's name, which is also the name of its Node.
    pub name: String,
    /// Bobbin's objects in the machine's kernel.
    pub kernel: Kernel,
    /// The attachments and blocks that the agent has saved.
    pub checkpoint: Checkpoint,
    /// The network namespaces of the machine's pods.
    pub sandboxes: Vec<Sandbox>,
}

/// Bobbin's objects in the kernel of a machine.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// The links that have an alias of Bobbin.
    pub links: Vec<HostLink>,
    /// The routes to single pods in table 116.
    pub pod_routes: Vec<PodRoute>,
    /// The blackhole routes in table 116.
    pub blackholes: Vec<IpNet>,
    /// The routes in table 119.
    pub exports: Vec<IpNet>,
    /// The address and the link of each permanent neighbour.
    pub neighbours: Vec<(IpAddr, String)>,
    /// Whether a routing rule looks up table 116. The first value is for IPv4, and the second for IPv6.
    pub rules: [bool; 2],
    /// Whether the anti-spoofing filter exists and has a rule.
    pub filter: bool,
}

/// A host link.
#[derive(Clone, Debug, Default)]
pub struct HostLink {
    /// The link's name.
    pub name: String,
    /// The attachment in the link's alias.
    pub attachment: AttachmentKey,
    /// Whether the link is in the group that the anti-spoofing filter matches.
    pub filtered: bool,
}

/// A route to a pod.
#[derive(Clone, Debug)]
pub struct PodRoute {
    /// The pod's address.
    pub to: IpAddr,
    /// The name of the link that the route uses.
    pub link: String,
}

/// The files under a machine's run directory.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Whether the run directory has a checkpoint. If it has none, no agent has run since the boot.
    pub exists: bool,
    /// The attachments.
    pub attachments: Vec<SavedAttachment>,
    /// The keys of attachments whose files can't be read. The rules treat these attachments as saved.
    pub unreadable: Vec<AttachmentKey>,
    /// The saved blocks.
    pub blocks: Vec<SavedBlock>,
}

/// An attachment in the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct SavedAttachment {
    /// The attachment.
    pub key: AttachmentKey,
    /// The attachment's addresses.
    pub addresses: Vec<IpAddr>,
    /// The attachment's pod.
    pub pod: PodId,
}

/// A block in the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct SavedBlock {
    /// The block's name.
    pub name: String,
    /// Whether the agent assigns addresses of the block.
    pub serving: bool,
}

/// The network namespace of a pod.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// The inode of the namespace.
    pub inode: u64,
    /// The container ID in the alias of `lo`; `None` if no agent has set the alias.
    pub container: Option<String>,
    /// The UID of the pod whose processes run in the namespace.
    pub pod_uid: Option<String>,
    /// The global addresses of each interface other than `lo`: interface name and address.
    pub addresses: Vec<(String, IpAddr)>,
}

impl Sandbox {
    /// The attachment of an interface in this namespace.
    pub fn attachment(&self, interface: &str) -> Option<AttachmentKey> {
        self.container.as_ref().map(|container| AttachmentKey::new(container, interface))
    }
}
