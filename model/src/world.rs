//! The state of the model: the API server, the nodes, the pods, the operators, and how many faults are left.

use bobbin_node_agent::{BlockState, Proof};

/// How many nodes the cluster has.
pub const NODES: usize = 2;
/// How many blocks the pool has.
pub const BLOCKS: usize = 2;
/// How many addresses a block has.
pub const ADDRESSES_PER_BLOCK: usize = 1;
/// How many addresses the pool has.
pub const ADDRESSES: usize = BLOCKS * ADDRESSES_PER_BLOCK;
/// How many attachments the runtimes add. Each attachment is one container with one interface.
pub const PODS: usize = 2;
/// How many operators act as the leader at the same time.
pub const OPERATORS: usize = 2;

/// The block of an address.
pub fn block_of(address: usize) -> usize {
    address / ADDRESSES_PER_BLOCK
}

/// The addresses of a block.
pub fn addresses_of(block: usize) -> std::ops::Range<usize> {
    block * ADDRESSES_PER_BLOCK..(block + 1) * ADDRESSES_PER_BLOCK
}

/// The owner that a block names: the number of the node, and the UID of the Node object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub node: usize,
    pub uid: u8,
}

/// An `AddressBlock` at the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockObject {
    pub owner: Option<Owner>,
    pub finalizer: bool,
}

/// An `IPAssignment` at the API server. Its name is its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assignment {
    pub pod: usize,
    pub node: usize,
    /// Whether programs can decode the object.
    pub readable: bool,
}

/// The objects at the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    pub blocks: [BlockObject; BLOCKS],
    pub assignments: [Option<Assignment>; ADDRESSES],
    /// The UID of each Node object.
    pub nodes: [Option<u8>; NODES],
    /// Whether each pod object exists.
    pub pods: [bool; PODS],
}

/// A block in the state of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub state: BlockState,
    pub proof: Proof,
}

/// A block in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Saved {
    pub state: BlockState,
    pub assignments_listed: bool,
}

/// The owner of a block, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    Free,
    ThisNode,
    /// The block names this node, but with the UID of an earlier Node object.
    EarlierNode,
    OtherNode,
}

/// A read of a doubted block whose answer the agent has not processed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    pub block: usize,
    pub found: Ownership,
    pub doubts: u32,
    /// True if no invalidation came after the read began.
    pub fresh: bool,
    /// True if the block has not changed since the read.
    pub current: bool,
}

/// A write that may still reach the API server, although its sender no longer waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Late {
    Claim(usize),
    /// The release tests the block's resourceVersion. So the release fails after any other write to the block.
    Release(usize),
}

/// One node: the machine, its agent, and the state that remains after the agent stops.
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Whether the machine runs.
    pub on: bool,
    /// Whether the agent runs.
    pub agent: bool,
    /// Whether the node is cut off: its agent and its kubelet don't reach the API server.
    pub partitioned: bool,
    /// The agent's blocks.
    pub blocks: [Option<Held>; BLOCKS],
    /// Whether the kernel's routing table 119 has a route for each block. The routes remain after the agent stops.
    pub routes: [bool; BLOCKS],
    /// The list of blocks in the checkpoint. The agent writes this list before each transition that must wait for the write.
    pub saved: [Option<Saved>; BLOCKS],
    /// The addresses that the agent does not assign, because other attachments have assignments with these addresses.
    pub excluded: [bool; ADDRESSES],
    /// The pods that the agent's last observation did not find at the API server.
    pub suspects: [bool; PODS],
    pub read: Option<Read>,
    pub late: Option<Late>,
    /// The UID of the latest Node object that the agent saw.
    pub uid: u8,
    /// Whether the agent saw that its Node was deleted.
    pub knows_gone: bool,
    /// Whether the node was without an agent for more than half of the grace period. An agent that starts after such an absence does not
    /// trust its saved blocks.
    pub long_absence: bool,
    /// Whether the agent has compared its blocks since it started.
    pub first_read: bool,
    /// Whether the resync has compared the node's assignments since the last restart, restore or invalidation.
    pub assignments_compared: bool,
    /// Whether the resync has compared the node's blocks since the last restart or restore.
    pub blocks_compared: bool,
    /// Whether the API server was restored, and the agent has had no contact with it since the restore.
    pub missed_restore: bool,
    /// True during the quiet time that follows a restore.
    pub quiet: bool,
}

/// The phase of an attachment's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The runtime has not called ADD yet.
    Waiting,
    /// ADD took an address and has not answered yet.
    Adding {
        /// The proof of the block when the address was taken.
        proof: Proof,
        /// False if the block was doubted or lost after ADD took the address.
        current: bool,
    },
    /// ADD has answered, and the container runs: the attachment is living.
    Live,
    /// The container has ended, but the agent has not processed a DEL.
    Dead,
    /// The agent has freed the address.
    Ended,
}

/// What the agent knows about the assignment of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// No assignment exists, or the agent no longer tracks the assignment.
    None,
    /// The create was not sent yet.
    Unsent,
    /// The create was sent, and its outcome is unknown.
    Unknown,
    /// The API server confirmed the assignment.
    Confirmed,
    /// The deletion of the assignment is queued.
    Deleting,
    /// The assignment was created in an earlier boot of the machine.
    EarlierBoot,
}

/// One attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub node: usize,
    pub address: usize,
    pub stage: Stage,
    pub assignment: Write,
}

impl Pod {
    /// Whether the agent of this node counts the address as in use by this attachment.
    pub fn holds(&self, node: usize) -> bool {
        self.node == node && matches!(self.stage, Stage::Adding { .. } | Stage::Live | Stage::Dead)
    }

    /// Whether the attachment has neither an address nor an assignment. If so, the fields `node` and `address` mean nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Ended) && self.assignment == Write::None
    }

    /// Whether the attachment's container runs and uses the address.
    pub fn living(&self) -> bool {
        self.stage == Stage::Live
    }
}

/// The objects that an operator has read and is about to write. The API server refuses the write if the resourceVersion or the UID has changed since the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    Idle,
    /// Releases the blocks and assignments of a deleted node.
    Reclaim {
        node: usize,
        /// The assignments to delete, except those that were deleted or replaced since the read.
        assignments: [bool; ADDRESSES],
        /// The blocks to release, except those that changed since the read.
        blocks: [bool; BLOCKS],
        assignments_deleted: bool,
    },
    /// Removes the finalizer of a free block in which the operator found no assignment.
    Finalizer {
        block: usize,
        current: bool,
    },
}

/// How many faults may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// How many operators act as the leader at the same time.
    pub operators: u8,
    /// How many times agents begin to release a block.
    pub releases: u8,
    /// How many times an agent is killed or a machine loses power.
    pub crashes: u8,
    /// How many answers to writes are lost.
    pub lost: u8,
    /// How many times a snapshot of etcd is restored.
    pub restores: u8,
    /// How many times a node is cut off from the API server.
    pub partitions: u8,
    /// How many Nodes are deleted.
    pub deleted_nodes: u8,
    /// How many watch events are out of date.
    pub old_events: u8,
    /// How many assignments get content that no program can decode.
    pub unreadable: u8,
}

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// An address in use is never freed.
    Freed,
    /// A node assigns addresses only from blocks that it owns according to the API server.
    ForeignBlock,
    /// A node assigns from a block only after its claim is confirmed and the block's route is exported. A block becomes free only after the
    /// node's assignments in the block are deleted and the route is withdrawn.
    Order,
}

/// A state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) api: Api,
    pub(crate) snapshot: Option<Api>,
    pub(crate) restored: bool,
    pub(crate) next_uid: u8,
    pub(crate) nodes: [Node; NODES],
    pub(crate) pods: [Pod; PODS],
    pub(crate) operators: [Plan; OPERATORS],
    pub(crate) budget: Budget,
    /// The rule that the last step broke.
    pub(crate) broken: Option<Rule>,
}

impl World {
    /// Builds a cluster of registered nodes with running agents, and two free blocks.
    pub(crate) fn new(budget: Budget) -> World {
        let node = Node {
            on: true,
            agent: true,
            partitioned: false,
            blocks: [None; BLOCKS],
            routes: [false; BLOCKS],
            saved: [None; BLOCKS],
            excluded: [false; ADDRESSES],
            suspects: [false; PODS],
            read: None,
            late: None,
            uid: 0,
            knows_gone: false,
            long_absence: false,
            first_read: true,
            assignments_compared: true,
            blocks_compared: true,
            missed_restore: false,
            quiet: false,
        };
        let api = Api {
            blocks: [BlockObject::default(); BLOCKS],
            assignments: [None; ADDRESSES],
            nodes: [Some(0); NODES],
            pods: [false; PODS],
        };
        let pod = Pod { node: 0, address: 0, stage: Stage::Waiting, assignment: Write::None };
        World {
            api,
            snapshot: None,
            restored: false,
            next_uid: 1,
            nodes: [node; NODES],
            pods: [pod; PODS],
            operators: [Plan::Idle; OPERATORS],
            budget,
            broken: None,
        }
    }

    /// Whether the agent runs and its calls reach the API server. Also returns false between a restore and the time at which the agent
    /// notices the restore.
    pub(crate) fn connected(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.agent && !node.partitioned && !node.missed_restore
    }

    /// Whether an attachment of the node has an address of the block.
    pub(crate) fn has_resident(&self, node: usize, block: usize) -> bool {
        self.pods.iter().any(|pod| pod.holds(node) && block_of(pod.address) == block)
    }

    /// Returns the owner of the block at the API server, as the node sees it.
    pub(crate) fn ownership(&self, node: usize, block: usize) -> Ownership {
        match self.api.blocks[block].owner {
            None => Ownership::Free,
            Some(owner) if owner.node != node => Ownership::OtherNode,
            Some(owner) if owner.uid == self.nodes[node].uid => Ownership::ThisNode,
            Some(_) => Ownership::EarlierNode,
        }
    }

    /// Notes that a step broke a rule. The checker explores no steps from a state with a broken rule.
    pub(crate) fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }
}
