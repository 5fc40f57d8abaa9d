//! Finds a free block and claims it: the calls of one claim to the API server.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_crds::{AddressPool, name};
use bobbin_datapath::{OccupiedNet, boot_time};
use bobbin_ipam::claim_order::candidates;
use kube::ResourceExt;

use super::node_network::in_pool;
use super::{ClaimError, Claims};
use crate::blocks::read::{BlockInfo, Owner};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{ReadStart, WatchedKind};
use crate::state::{BlockEvent, ClaimedBlock};

/// How many times a claim lists the free blocks and tries the best block. The claim tries again if another node claimed that block first.
const MAX_CONTENDED_ROUNDS: usize = 3;
/// How many blocks a claim tries without reading them.
const MAX_OPTIMISTIC_CANDIDATES: usize = 3;
/// The first and the longest pause between two reads of a block whose claim has an unknown outcome.
const READ_BACK_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];

/// Is called once if the first read of a block does not show whether the claim succeeded. The claim then keeps reading the block.
pub(crate) type OnUnknown<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

/// The result of one attempt to claim one block.
enum AttemptResult {
    Claimed(ClaimedBlock),
    /// Another node has the block, or this node's state already contains it.
    Taken,
    /// The block does not exist.
    Gone,
}

/// One attempt to claim one block.
struct ClaimAttempt<'a> {
    pool: &'a AddressPool,
    node: &'a NodeInfo,
    block: &'a str,
    had_finalizer: bool,
    start: ReadStart,
}

/// The blocks to try without a read, in an order that differs from node to node.
///
/// Returns three blocks if most of the window is free, because one of them is then probably free; otherwise one block. These blocks may
/// still cool down. With `maxBlocksPerNode` the result is empty, so that the node's last allowed block is not a cooling one.
fn optimistic_candidates(pool: &AddressPool, node: &str, seed: u64) -> impl Iterator<Item = i64> + use<> {
    let window = pool.status.as_ref().and_then(|status| status.free_window);
    let span = window.and_then(|window| Some((u64::try_from(window.first).ok()?, u64::try_from(window.last).ok()?)));
    let most_are_free = window.is_some_and(|window| {
        i128::from(window.free) * 4 > (i128::from(window.last) - i128::from(window.first) + 1) * 3
    });
    let count = if most_are_free { MAX_OPTIMISTIC_CANDIDATES } else { 1 };
    let count = if pool.spec.max_blocks_per_node.is_some() { 0 } else { count };
    let order = span.map(|(first, last)| candidates(node, &pool.name_any(), first, last, seed));
    order.into_iter().flatten().take(count).filter_map(|index| index.try_into().ok())
}

impl Claims {
    /// Finds a free block, claims it, and adds it to the node's state. Without a read, the agent does not know the addresses of a block.
    /// So if networks of the node (`occupied`) lie in the pool, the agent lists the free blocks first.
    pub(super) async fn find(
        &self,
        pool: &AddressPool,
        node: &NodeInfo,
        cooled_only: bool,
        occupied: &[OccupiedNet],
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let pool_name = pool.name_any();
        let unread_allowed = !cooled_only && in_pool(pool, occupied).is_empty();
        let optimistic = optimistic_candidates(pool, &node.name, self.seed()).filter(|_| unread_allowed);
        for block in optimistic.map(|index| name::block(&pool_name, index)) {
            let start = self.0.freshness.begin_read(boot_time());
            let attempt = ClaimAttempt { pool, node, block: &block, had_finalizer: false, start };
            match self.attempt(&attempt, None, on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                AttemptResult::Taken => {}
                // The block does not exist, so the window in the pool's status is out of date.
                AttemptResult::Gone => break,
            }
        }
        let mut tried = HashSet::new();
        for _ in 0..MAX_CONTENDED_ROUNDS {
            let start = self.0.freshness.begin_read(boot_time());
            let free = self.select_free(pool, node, cooled_only, occupied, &tried).await?;
            let attempt = ClaimAttempt { pool, node, block: &free.name, had_finalizer: free.finalizer, start };
            match self.attempt(&attempt, Some(&free), on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                AttemptResult::Taken | AttemptResult::Gone => tried.insert(free.name.clone()),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Tries to claim one block, with or without reading it first. The node's state lists the block as `claiming` until the outcome is
    /// known.
    async fn attempt(
        &self,
        attempt: &ClaimAttempt<'_>,
        read: Option<&BlockInfo>,
        on_unknown: OnUnknown<'_>,
    ) -> Result<AttemptResult, ClaimError> {
        let pool = attempt.pool.name_any();
        if !self.0.node_state.begin_claim(attempt.block, &pool) {
            return Ok(AttemptResult::Taken);
        }
        let floor = self.0.freshness.version(WatchedKind::Blocks);
        let written = match read {
            Some(read) => self.0.api.claim(read, attempt.node).await,
            None => self.0.api.claim_optimistically(attempt.block, attempt.node).await,
        };
        let failed = match written {
            Outcome::Done(block) => return self.claimed(attempt, &block, floor),
            Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => {
                self.0.conflicts.inc();
                Ok(AttemptResult::Taken)
            }
            Outcome::Refused(Refusal::NotFound) => Ok(AttemptResult::Gone),
            Outcome::Refused(refusal) => Err(ClaimError::Refused {
                pool: pool.clone(),
                node: attempt.node.name.clone(),
                block: attempt.block.to_owned(),
                why: refusal.to_string(),
            }),
            Outcome::Unknown(why) => {
                self.0.freshness.observe_call(Some(&why), boot_time());
                let block = attempt.block;
                tracing::warn!(block, %why, "the agent does not know whether its claim of a block succeeded; it reads the block before it allocates from it");
                let report =
                    || on_unknown(ClaimError::Unreachable { pool: pool.clone(), why: format!("block {block}: {why}") });
                match self.read_back(block, attempt.node, report).await {
                    Some(block) => return self.claimed(attempt, &block, floor),
                    None => Ok(AttemptResult::Taken),
                }
            }
        };
        self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
        failed
    }

    fn claimed(&self, attempt: &ClaimAttempt<'_>, block: &BlockInfo, floor: u64) -> Result<AttemptResult, ClaimError> {
        // Record the answer before adding the block. After an outage or a restored snapshot, the first answer starts the quiet time. The
        // block must wait for its end.
        self.0.freshness.answered(boot_time());
        self.0.freshness.observe_version(WatchedKind::Blocks, &block.resource_version, floor);
        let added = self.add_owned(block, attempt.had_finalizer, Some(attempt.pool), attempt.start, true);
        let held = added.map_err(|why| {
            self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
            ClaimError::UnusableBlock { pool: attempt.pool.name_any(), node: attempt.node.name.clone(), why }
        })?;
        // An administrator may have replaced this node's Node object during the claim.
        if self.0.cluster.node().is_none_or(|node| block.owner(&node) != Owner::ThisNode) {
            self.0.node_state.on(&held.name, BlockEvent::Doubt);
        }
        Ok(AttemptResult::Claimed(held))
    }

    /// Reads a block until the read shows the owner. Calls `report` once if the first read does not show the owner.
    async fn read_back(&self, block: &str, node: &NodeInfo, report: impl Fn()) -> Option<BlockInfo> {
        for attempt in 0.. {
            match self.0.api.get(block).await {
                Ok(found) if found.owner(node) == Owner::ThisNode => return Some(found),
                Ok(found) if found.owner(node) == Owner::Unknown => {
                    tracing::debug!(
                        block,
                        "the agent can't decode the block that it tried to claim, so it can't tell whether the claim succeeded; it reads the block again"
                    );
                }
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.0.freshness.observe_call(Some(why), boot_time());
                    }
                    tracing::debug!(block, %error, "the agent does not know whether its claim of a block succeeded, and reading the block failed; the agent tries again");
                }
            }
            if attempt == 0 {
                report();
            }
            tokio::time::sleep(bobbin_api_client::backoff(attempt, READ_BACK_BACKOFF[0], READ_BACK_BACKOFF[1])).await;
        }
        None
    }

    pub(super) fn seed(&self) -> u64 {
        self.0.attempts.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
