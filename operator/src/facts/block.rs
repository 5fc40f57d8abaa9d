//! What is known of one block. Pure.

use std::sync::Arc;

use bobbin_crds::{AddressBlock, FINALIZER};
use bobbin_ipam::BlockRange;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Who has claimed a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The block is free.
    #[default]
    Nobody,
    /// This node.
    Node(Arc<str>),
    /// The block can't be read, so it counts as claimed.
    Unknown,
}

impl Holder {
    /// The node, if one is known.
    pub(crate) fn node(&self) -> Option<&Arc<str>> {
        match self {
            Self::Node(node) => Some(node),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

/// A block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockFact {
    pub(crate) index: u64,
    /// `None`: it can't be read.
    pub(crate) range: Option<BlockRange>,
    pub(crate) holder: Holder,
    /// The place of our finalizer among the block's finalizers.
    pub(crate) finalizer: Option<usize>,
    pub(crate) deleting: bool,
    pub(crate) uid: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) free_since: Option<MicroTime>,
    /// The claim on it, or the last one, if the watch has shown it.
    pub(crate) claim: Option<Claim>,
    /// How many assignments name it, or lie in it and can't be read.
    pub(crate) assigned: u32,
}

/// A claim on a block, as the watch showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The block's `freeSince` while it was claimed.
    pub(crate) free_since: Option<MicroTime>,
    /// An assignment named the block since.
    pub(crate) used: bool,
}

impl BlockFact {
    /// What a readable block says. `node` is who has claimed it.
    pub(crate) fn of(block: &AddressBlock, index: u64, node: Option<Arc<str>>) -> Self {
        let (spec, metadata) = (&block.spec, &block.metadata);
        Self {
            index,
            range: BlockRange::parse(spec.ipv4.as_deref(), spec.ipv6.as_deref()).ok(),
            holder: node.map_or(Holder::Nobody, Holder::Node),
            finalizer: metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER),
            deleting: metadata.deletion_timestamp.is_some(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            free_since: spec.free_since.clone(),
            claim: None,
            assigned: 0,
        }
    }

    /// A block that can't be read: in use, by nobody knows whom.
    pub(crate) fn unreadable(index: u64) -> Self {
        Self { index, holder: Holder::Unknown, ..Self::default() }
    }

    /// Nobody has claimed it.
    pub(crate) fn is_free(&self) -> bool {
        self.holder == Holder::Nobody
    }

    /// Takes over what an earlier look at the same block knew of its claim. `assigned` assignments name it now.
    pub(crate) fn follow(&mut self, earlier: Option<&Self>, assigned: u32) {
        let earlier = earlier.filter(|earlier| earlier.uid == self.uid);
        self.claim = match &self.holder {
            Holder::Nobody => earlier.and_then(|earlier| earlier.claim.clone()),
            holder => {
                let same =
                    earlier.filter(|earlier| earlier.holder == *holder).and_then(|earlier| earlier.claim.clone());
                let new = || Claim { free_since: self.free_since.clone(), used: false };
                Some(same.unwrap_or_else(new))
            }
        };
        if assigned > 0 {
            self.is_used();
        }
    }

    /// An assignment names it.
    pub(crate) fn is_used(&mut self) {
        if let Some(claim) = &mut self.claim {
            claim.used = true;
        }
    }

    /// Whether it surely went back as it was claimed: then its addresses rest no longer than before. In doubt it did not.
    pub(crate) fn went_back_unused(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| !claim.used && claim.free_since == self.free_since)
    }
}

/// Pool and index of a block's name.
pub(crate) fn block_key(name: &str) -> Option<(&str, u64)> {
    let (pool, index) = name.rsplit_once('-')?;
    Some((pool, index.parse().ok()?)).filter(|(pool, _)| !pool.is_empty())
}
