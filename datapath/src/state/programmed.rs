//! The objects on the node that were correct when this agent last read or changed them.
//!
//! From this list, a reconcile pass learns why an object differs from the desired state. If the list has the object with
//! the same desired state, another program changed the object, and the correction is a repair. Otherwise, the desired
//! state is new or changed. The list starts empty, so changes from before the agent's start never count as repairs.

use std::collections::{HashMap, HashSet};

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::node::desired::DirectRoute;
use crate::pod::attachment::Wiring;

/// The objects that matched the desired state when they were last read or changed, each with its desired value at that time.
#[derive(Debug, Default)]
pub(crate) struct ProgrammedState {
    pods: HashMap<AttachmentKey, Wiring>,
    blocks: HashSet<BlockRange>,
    direct_routes: HashSet<DirectRoute>,
    /// Whether the node is set up: the first value for IPv4, the second for IPv6.
    set_up: [bool; 2],
}

impl ProgrammedState {
    /// The wiring that an attachment had when all its objects were last correct.
    pub(crate) fn pod(&self, key: &AttachmentKey) -> Option<&Wiring> {
        self.pods.get(key)
    }

    pub(crate) fn has_pod(&self, wiring: &Wiring) -> bool {
        self.pods.get(&wiring.key) == Some(wiring)
    }

    pub(crate) fn put_pod(&mut self, wiring: &Wiring) {
        self.pods.insert(wiring.key.clone(), wiring.clone());
    }

    /// Forgets each pod for which `keep` returns false.
    pub(crate) fn keep_pods(&mut self, keep: impl Fn(&Wiring) -> bool) {
        self.pods.retain(|_, pod| keep(pod));
    }

    pub(crate) fn remove_pod(&mut self, key: &AttachmentKey) {
        self.pods.remove(key);
    }

    pub(crate) fn has_block(&self, block: &BlockRange) -> bool {
        self.blocks.contains(block)
    }

    pub(crate) fn put_block(&mut self, block: BlockRange) {
        self.blocks.insert(block);
    }

    pub(crate) fn remove_block(&mut self, block: &BlockRange) {
        self.blocks.remove(block);
    }

    /// Forgets all blocks except the given blocks.
    pub(crate) fn keep_blocks(&mut self, blocks: &HashSet<BlockRange>) {
        self.blocks.retain(|block| blocks.contains(block));
    }

    pub(crate) fn has_direct_route(&self, route: &DirectRoute) -> bool {
        self.direct_routes.contains(route)
    }

    pub(crate) fn set_direct_routes(&mut self, routes: HashSet<DirectRoute>) {
        self.direct_routes = routes;
    }

    pub(crate) fn is_set_up(&self, ipv6: bool) -> bool {
        self.set_up[usize::from(ipv6)]
    }

    pub(crate) fn mark_set_up(&mut self, ipv6: bool) {
        self.set_up[usize::from(ipv6)] = true;
    }

    /// Forgets all objects, because all of them were removed from the node.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
