//! What this program last left right on the node. It tells a repair (another program interfered) from a change of what
//! is wanted.
//!
//! Empty at start: what an earlier agent left is adopted, not repaired.

use std::collections::{HashMap, HashSet};

use bobbin_ipam::{AttachmentKey, BlockRange};

use crate::attachment::Wiring;
use crate::converge::DirectRoute;
use crate::finding::FindingKind;

/// What was right when it was last looked at or made, by the values that were wanted then.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    pods: HashMap<AttachmentKey, Wiring>,
    blocks: HashSet<BlockRange>,
    direct: HashSet<DirectRoute>,
    /// What the node needs whatever its pods, by family: IPv4, IPv6.
    prepared: [bool; 2],
}

/// The kind of a finding on something: a repair only if exactly this was in place before.
pub(crate) fn kind(was_in_place: bool) -> FindingKind {
    if was_in_place { FindingKind::Repaired } else { FindingKind::Applied }
}

impl InPlace {
    /// How the attachment was wired when all of it was last right.
    pub(crate) fn pod(&self, key: &AttachmentKey) -> Option<&Wiring> {
        self.pods.get(key)
    }

    pub(crate) fn has_pod(&self, wiring: &Wiring) -> bool {
        self.pods.get(&wiring.key) == Some(wiring)
    }

    pub(crate) fn put_pod(&mut self, wiring: &Wiring) {
        self.pods.insert(wiring.key.clone(), wiring.clone());
    }

    /// Forgets the others.
    pub(crate) fn keep_pods(&mut self, stays: impl Fn(&Wiring) -> bool) {
        self.pods.retain(|_, pod| stays(pod));
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

    /// The blocks are exactly these from now on.
    pub(crate) fn keep_blocks(&mut self, blocks: &HashSet<BlockRange>) {
        self.blocks.retain(|block| blocks.contains(block));
    }

    pub(crate) fn has_direct(&self, route: &DirectRoute) -> bool {
        self.direct.contains(route)
    }

    pub(crate) fn set_direct(&mut self, routes: HashSet<DirectRoute>) {
        self.direct = routes;
    }

    pub(crate) fn is_prepared(&self, ipv6: bool) -> bool {
        self.prepared[usize::from(ipv6)]
    }

    pub(crate) fn set_prepared(&mut self, ipv6: bool) {
        self.prepared[usize::from(ipv6)] = true;
    }

    /// Everything was removed.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
