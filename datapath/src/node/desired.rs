//! The desired state of the node's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_ipam::BlockRange;

use crate::pod::attachment::Wiring;

/// What the node's network should hold.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    /// The node's claimed blocks. Routes of other blocks are removed. The caller must not export or withdraw a block
    /// while a reconcile pass runs.
    pub blocks: Vec<BlockRange>,
    /// Whether `blocks` may lack some of the node's blocks. Then no block's routes are removed.
    pub blocks_incomplete: bool,
    /// The node's live attachments.
    pub pods: Vec<Wiring>,
    /// With `--routing=direct`: the other nodes' blocks. `None` when they are not known yet, or not used; then these routes
    /// stay as they are, and the main table is not read.
    pub direct: Option<Vec<DirectRoute>>,
    /// Whether the node uses IPv4.
    pub ipv4: bool,
    /// Whether the node uses IPv6.
    pub ipv6: bool,
}

/// Another node's block and the addresses that lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirectRoute {
    /// The block.
    pub block: BlockRange,
    /// That node's IPv4 address.
    pub via4: Option<Ipv4Addr>,
    /// That node's IPv6 address.
    pub via6: Option<Ipv6Addr>,
}
