//! What a Node looked like when it was deleted. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use bobbin_api_client::PartialNode;

/// How a Node was deleted, as far as the watch has shown. If two observations of a Node differ, the later variant counts.
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
    /// How many nodes own something, whether deleted or not.
    pub(crate) count: usize,
    /// The deleted nodes among them.
    pub(crate) deleted: HashMap<Arc<str>, Departure>,
}
