//! The desired state of the node's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_ipam::BlockRange;

use crate::pod::attachment::Wiring;

/// What the node's network should hold, as the agent knows it.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    /// The blocks that the node has claimed. A reconcile pass removes routes of other blocks, so the caller must not
    /// export or withdraw a block meanwhile.
    pub blocks: Vec<BlockRange>,
    /// Whether `blocks` may lack blocks of the node. Then no route of a block is removed.
    pub blocks_incomplete: bool,
    /// The node's live attachments.
    pub pods: Vec<Wiring>,
    /// The other nodes' blocks, with `--routing=direct`. `None` when they are unknown or not used: then the main table
    /// is neither read nor changed.
    pub direct: Option<Vec<DirectRoute>>,
    /// Whether the node uses IPv4.
    pub ipv4: bool,
    /// Whether the node uses IPv6.
    pub ipv6: bool,
}

/// Another node's block, and that node's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectRoute {
    /// The block.
    pub block: BlockRange,
    /// The IPv4 address of that node.
    pub via4: Option<Ipv4Addr>,
    /// The IPv6 address of that node.
    pub via6: Option<Ipv6Addr>,
}
