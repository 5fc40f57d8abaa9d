//! The desired state of the node's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_ipam::BlockRange;

use crate::pod::attachment::Wiring;

/// The objects that should exist in the node's network, as far as the agent knows.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    /// The blocks that the node has claimed. A reconcile pass removes the routes of all other blocks, so the caller
    /// must not export or withdraw a block during the pass.
    pub blocks: Vec<BlockRange>,
    /// Whether `blocks` may lack some of the node's blocks. If so, a reconcile pass does not remove any block's route.
    pub blocks_incomplete: bool,
    /// The node's live attachments.
    pub pods: Vec<Wiring>,
    /// The routes to other nodes' blocks (`--routing=direct`). `None` if the other nodes' blocks are unknown, or if the
    /// node uses no direct routes. A reconcile pass then ignores direct routes.
    pub direct: Option<Vec<DirectRoute>>,
    /// Whether the node uses IPv4.
    pub ipv4: bool,
    /// Whether the node uses IPv6.
    pub ipv6: bool,
}

/// A block of another node, and the addresses of that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectRoute {
    /// The other node's block.
    pub block: BlockRange,
    /// The IPv4 address of the node that owns the block.
    pub via4: Option<Ipv4Addr>,
    /// The IPv6 address of the node that owns the block.
    pub via6: Option<Ipv6Addr>,
}
