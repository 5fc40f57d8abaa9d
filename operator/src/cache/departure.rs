//! The last known state of a deleted Node. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use bobbin_api_client::PartialNode;

/// Whether the deletion of a Node was expected, according to the watch. If two observations of a Node differ, the variant
/// that this enum lists last counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Departure {
    /// The watch has not shown the Node, because it was deleted before this operator started.
    #[default]
    Unknown,
    /// Nothing announced the deletion of the Node.
    Unexpected,
    /// The Node was cordoned or shut down, or an autoscaler was about to delete it.
    Expected,
    /// The Node had the out-of-service taint: its machine is off.
    OutOfService,
}

impl Departure {
    /// The departure of a Node whose last known state is `node`.
    pub(crate) fn of(node: &PartialNode) -> Self {
        match (node.out_of_service(), node.removal_expected()) {
            (true, _) => Self::OutOfService,
            (false, true) => Self::Expected,
            (false, false) => Self::Unexpected,
        }
    }
}

/// The nodes that own blocks or assignments.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeOwners {
    /// How many nodes own something. The number includes deleted nodes.
    pub(crate) count: usize,
    /// The deleted nodes that own something.
    pub(crate) deleted: HashMap<Arc<str>, Departure>,
}
