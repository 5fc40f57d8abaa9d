//! One `AddressBlock` as the cache stores it. Pure.

use std::sync::Arc;
use std::time::Duration;

use bobbin_crds::{AddressBlock, FINALIZER, name};
use bobbin_ipam::BlockRange;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// How far the clocks of two operators may differ.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_hours(1);

/// The owner of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum BlockOwner {
    /// No node has claimed the block: it is free.
    #[default]
    Unclaimed,
    /// The named node has claimed the block.
    Node(Arc<str>),
    /// The block can't be decoded, so it counts as claimed.
    Unknown,
}

impl BlockOwner {
    /// The node that has claimed the block; `None` if the block is free or can't be decoded.
    pub(crate) fn node(&self) -> Option<&Arc<str>> {
        match self {
            Self::Node(node) => Some(node),
            Self::Unclaimed | Self::Unknown => None,
        }
    }
}

/// The fields of a block that the cache stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockInfo {
    pub(crate) index: u64,
    /// The block's addresses. `None` if the block or its CIDRs can't be decoded.
    pub(crate) range: Option<BlockRange>,
    pub(crate) owner: BlockOwner,
    /// The position of Bobbin's finalizer in the block's list of finalizers.
    pub(crate) finalizer: Option<usize>,
    pub(crate) deleting: bool,
    /// Whether the block is unchanged since the operator created it: no node ever claimed the block, and it has no
    /// finalizer.
    pub(crate) untouched: bool,
    pub(crate) uid: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) free_since: Option<MicroTime>,
    /// The current claim of the block, or its last claim if the block is free. `None` if the watch has shown no claim.
    pub(crate) claim: Option<Claim>,
    /// How many readable assignments name the block, plus how many unreadable assignments may have an address of the block.
    pub(crate) assigned: u32,
    /// How many of the readable assignments that name the block are void.
    pub(crate) void: u32,
}

/// A claim on a block, as the watch showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The value of the block's `freeSince` during the claim.
    pub(crate) free_since: Option<MicroTime>,
    /// Whether an assignment has named the block since the claim began.
    pub(crate) used: bool,
}

impl BlockInfo {
    /// The rest of the cool-down of a free block's addresses. Returns the whole cool-down if the last owner's release
    /// is incomplete. A `freeSince` in the future counts as now.
    pub(crate) fn cooldown_left(&self, cooldown: Duration, now: Timestamp) -> Duration {
        if self.finalizer.is_some() {
            return cooldown;
        }
        let free_for = |since: &MicroTime| Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        self.free_since.as_ref().map_or(Duration::ZERO, |since| cooldown.saturating_sub(free_for(since)))
    }

    /// Whether the last owner's release is complete, and the cool-down of the block's addresses has ended.
    pub(crate) fn has_cooled(&self, cooldown: Duration, now: Timestamp) -> bool {
        self.cooldown_left(cooldown, now).is_zero()
    }

    /// Whether the operator must complete the release by the last owner, or must correct the block's `freeSince`.
    pub(crate) fn has_unfinished_release(&self, cooldown: Duration, now: Timestamp) -> bool {
        self.finalizer.is_some() || self.is_far_ahead(cooldown, now)
    }

    /// Whether `freeSince` is so far in the future that it must be wrong. The cool-down of such a block would last too long. A
    /// time that is only a little ahead may be right, because this operator's clock may be slow.
    pub(crate) fn is_far_ahead(&self, cooldown: Duration, now: Timestamp) -> bool {
        let ahead = |since: &MicroTime| Duration::try_from(since.0.duration_since(now)).unwrap_or_default();
        self.free_since.as_ref().is_some_and(|since| ahead(since) > cooldown.max(MAX_CLOCK_DIFFERENCE))
    }

    /// A block that can be decoded. `node` is the node that has claimed the block; `None` if the block is free.
    pub(crate) fn new(block: &AddressBlock, index: u64, node: Option<Arc<str>>) -> Self {
        let (spec, metadata) = (&block.spec, &block.metadata);
        Self {
            index,
            range: BlockRange::parse(spec.ipv4.as_deref(), spec.ipv6.as_deref()).ok(),
            // The API server raises the generation with each change of the spec, so a block that a node claimed has a
            // generation above 1.
            untouched: node.is_none()
                && metadata.generation == Some(1)
                && metadata.finalizers.iter().flatten().next().is_none()
                && metadata.deletion_timestamp.is_none()
                // A block restored from a backup has generation 1 again, but its addresses may still cool down.
                && spec.free_since.is_none(),
            owner: node.map_or(BlockOwner::Unclaimed, BlockOwner::Node),
            finalizer: metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER),
            deleting: metadata.deletion_timestamp.is_some(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            free_since: spec.free_since.clone(),
            claim: None,
            assigned: 0,
            void: 0,
        }
    }

    /// A block that can't be decoded. The block counts as claimed by an unknown node.
    pub(crate) fn unreadable(index: u64) -> Self {
        Self { index, owner: BlockOwner::Unknown, ..Self::default() }
    }

    /// Whether no node has claimed the block.
    pub(crate) fn is_free(&self) -> bool {
        self.owner == BlockOwner::Unclaimed
    }

    /// Copies the claim from `earlier`, the previous entry of this block in the cache. If the block has a new owner,
    /// begins a new claim instead. `assigned` is the number of assignments that name the block now.
    pub(crate) fn carry_claim(&mut self, earlier: Option<&Self>, assigned: u32) {
        let earlier = earlier.filter(|earlier| earlier.uid == self.uid);
        self.claim = match &self.owner {
            BlockOwner::Unclaimed => earlier.and_then(|earlier| earlier.claim.clone()),
            owner => {
                let same = earlier.filter(|earlier| earlier.owner == *owner).and_then(|earlier| earlier.claim.clone());
                let new = || Claim { free_since: self.free_since.clone(), used: false };
                Some(same.unwrap_or_else(new))
            }
        };
        if assigned > 0 {
            self.mark_used();
        }
    }

    /// Notes that an assignment has named the block since the current claim began.
    pub(crate) fn mark_used(&mut self) {
        if let Some(claim) = &mut self.claim {
            claim.used = true;
        }
    }

    /// Whether the watch proves that no pod used an address of the block during the last claim. Such a block needs no new
    /// cool-down.
    pub(crate) fn was_released_unused(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| !claim.used && claim.free_since == self.free_since)
    }
}

/// Splits a block's name into the name of its pool and the index of the block.
pub(crate) fn block_key(name: &str) -> Option<(&str, u64)> {
    let (pool, index) = name.rsplit_once('-')?;
    Some((pool, index.parse().ok()?)).filter(|(pool, _)| !pool.is_empty())
}

/// The index in the name of a block of this pool; `None` for the name of another object. `p-05` and `p-+5` are no names of block
/// 5, because no block has such a name.
pub(crate) fn block_index(pool: &str, block: &str) -> Option<u64> {
    let index = block.strip_prefix(pool)?.strip_prefix('-')?.parse().ok()?;
    (name::block(pool, index) == block).then_some(index)
}
