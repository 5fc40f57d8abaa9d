//! Makes the API calls with which the agent finds and claims a free block.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_crds::{AddressPool, name};
use bobbin_datapath::{OccupiedNet, boot_time};
use bobbin_ipam::claim_order::candidates;
use kube::ResourceExt;

use super::node_network::in_pool;
use super::{ClaimError, Claims, Supply};
use crate::blocks::read::{BlockInfo, Owner};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{ReadStart, WatchedKind};
use crate::metrics::AttemptOutcome;
use crate::state::{BlockEvent, ClaimedBlock};

/// The first and the longest pause between two reads of a block whose claim has an unknown outcome.
const READ_BACK_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];

/// A function that a claim calls if its outcome stays unknown. After a write with an unknown outcome, the claim reads the block. If the
/// first read does not show the owner, the claim calls this function once, and keeps reading the block.
pub(crate) type OnUnknown<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

/// The result of one attempt to claim one block.
enum AttemptResult {
    Claimed(ClaimedBlock),
    /// Another node has the block, or this node's state already contains it.
    Taken,
    /// The block does not exist.
    Gone,
}

/// What the API server answered to an attempt, for the metrics.
fn outcome_of<T>(written: &Outcome<T>) -> AttemptOutcome {
    match written {
        Outcome::Done(_) => AttemptOutcome::Claimed,
        Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => AttemptOutcome::LostRace,
        Outcome::Refused(Refusal::NotFound) => AttemptOutcome::NotFound,
        Outcome::Refused(_) => AttemptOutcome::Refused,
        Outcome::Unknown(_) => AttemptOutcome::Unknown,
    }
}

/// How a claim selects blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClaimOptions {
    /// Whether the claim skips blocks that are still cooling down.
    pub cooled_only: bool,
    /// Whether the pool's status may be out of date. If true, a claim that lost a block to another node then lists the free blocks, even in
    /// a crowded pool.
    pub status_may_be_outdated: bool,
}

/// One attempt to claim one block.
struct ClaimAttempt<'a> {
    pool: &'a AddressPool,
    node: &'a NodeInfo,
    block: &'a str,
    had_finalizer: bool,
    start: ReadStart,
}

/// The blocks to try without a read, in an order that differs from node to node. These blocks may still be cooling down.
///
/// Empty if `cooled_only` is true. Also empty for a pool with `maxBlocksPerNode`, so that the node does not use up its maximum with a block
/// that is still cooling down.
fn unread_candidates(
    pool: &AddressPool,
    node: &str,
    seed: u64,
    cooled_only: bool,
) -> impl Iterator<Item = i64> + use<> {
    let window = pool.status.as_ref().and_then(|status| status.free_window);
    let span = window.and_then(|window| Some((u64::try_from(window.first).ok()?, u64::try_from(window.last).ok()?)));
    let only_read = cooled_only || pool.spec.max_blocks_per_node.is_some();
    let count = if only_read { 0 } else { Supply::of(pool).unread_tries() };
    let order = span.map(|(first, last)| candidates(node, &pool.name_any(), first, last, seed));
    order.into_iter().flatten().take(count).filter_map(|index| index.try_into().ok())
}

impl Claims {
    /// Finds a free block, claims it, and adds it to the node's state. If networks of the node (`occupied`) lie in the pool, the agent
    /// first lists the free blocks to learn their addresses.
    pub(super) async fn find(
        &self,
        pool: &AddressPool,
        node: &NodeInfo,
        options: ClaimOptions,
        occupied: &[OccupiedNet],
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let pool_name = pool.name_any();
        let ClaimOptions { cooled_only, status_may_be_outdated } = options;
        let supply = Supply::of(pool);
        let unread_allowed = in_pool(pool, occupied).is_empty();
        let unread = unread_candidates(pool, &node.name, self.seed(), cooled_only).filter(|_| unread_allowed);
        let mut another_was_faster = false;
        for block in unread.map(|index| name::block(&pool_name, index)) {
            let start = self.0.freshness.begin_read(boot_time());
            let attempt = ClaimAttempt { pool, node, block: &block, had_finalizer: false, start };
            match self.attempt(&attempt, None, on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                AttemptResult::Taken => another_was_faster = true,
                // The block does not exist, so the range of free blocks in the pool's status (`freeWindow`) is out of date.
                AttemptResult::Gone => break,
            }
        }
        if another_was_faster && supply.is_crowded() && !status_may_be_outdated {
            return Err(ClaimError::Contended(pool_name));
        }
        let mut tried = HashSet::new();
        for _ in 0..supply.max_lists() {
            let start = self.0.freshness.begin_read(boot_time());
            let free = self.select_free(pool, node, cooled_only, occupied, &tried).await?;
            let attempt = ClaimAttempt { pool, node, block: &free.name, had_finalizer: free.finalizer, start };
            match self.attempt(&attempt, Some(&free), on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                // Skip only this version of the block: if another program changes the block but leaves it free, the node may try it again.
                AttemptResult::Taken | AttemptResult::Gone => tried.insert(free.version()),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Tries to claim one block. `read` is `None` if the agent has not read the block. The node's state lists the block as `claiming` until
    /// the outcome is known.
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
            None => self.0.api.claim_unread(attempt.block, attempt.node).await,
        };
        self.0.metrics.attempted(outcome_of(&written));
        let block = attempt.block;
        let report = |why: &dyn std::fmt::Display| {
            on_unknown(ClaimError::Unreachable { pool: pool.clone(), why: format!("block {block}: {why}") });
        };
        let failed = match written {
            Outcome::Done(block) => return self.claimed(attempt, &block, Some(floor)),
            Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => Ok(AttemptResult::Taken),
            Outcome::Refused(Refusal::NotFound) => Ok(AttemptResult::Gone),
            Outcome::Refused(refusal) => Err(ClaimError::Refused {
                pool: pool.clone(),
                node: attempt.node.name.clone(),
                block: attempt.block.to_owned(),
                why: refusal.to_string(),
            }),
            Outcome::Unknown(why) => {
                self.0.freshness.observe_call(Some(&why), boot_time());
                tracing::warn!(block, %why, "the agent does not know whether its claim of a block succeeded. The agent reads the block before it allocates addresses from the block");
                let found = self.read_back(block, attempt.node, || report(&why)).await;
                return match found {
                    Some(found) => self.claimed(attempt, &found, Some(floor)),
                    None => self.failed(attempt, Ok(AttemptResult::Taken)),
                };
            }
        };
        self.0.node_state.on(block, BlockEvent::ClaimRefused);
        if self.0.node_state.block_state(block).is_none() {
            return failed;
        }
        // The state still has the block, because the watch showed this node as the owner. So this claim or an earlier claim of this node
        // took effect, although the API server refused this call.
        let why = "the API server refused a claim, but the watch showed this node as the owner";
        match self.read_back(block, attempt.node, || report(&why)).await {
            Some(found) => self.claimed(attempt, &found, None),
            None => self.failed(attempt, failed),
        }
    }

    fn failed(
        &self,
        attempt: &ClaimAttempt<'_>,
        result: Result<AttemptResult, ClaimError>,
    ) -> Result<AttemptResult, ClaimError> {
        self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
        result
    }

    /// Adds the block to the node's state. `floor` is the highest resourceVersion that the agent knew before the claim. `floor` is `None`
    /// if the API server refused the claim although the node owns the block. The node may then own the block since an earlier claim, and
    /// other nodes may have assignments in the block.
    fn claimed(
        &self,
        attempt: &ClaimAttempt<'_>,
        block: &BlockInfo,
        floor: Option<u64>,
    ) -> Result<AttemptResult, ClaimError> {
        // Record the answer before adding the block, because the first answer after an outage or a restore of etcd starts the quiet time.
        // The block must not enter service before the quiet time ends.
        self.0.freshness.answered(boot_time());
        if let Some(floor) = floor {
            self.0.freshness.observe_version(WatchedKind::Blocks, &block.resource_version, floor);
        }
        let is_new = floor.is_some();
        let added = self.add_owned(block, attempt.had_finalizer || !is_new, Some(attempt.pool), attempt.start, is_new);
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

    /// Reads a block repeatedly until a read shows the owner. Calls `report` once if the first read does not show the owner.
    async fn read_back(&self, block: &str, node: &NodeInfo, report: impl Fn()) -> Option<BlockInfo> {
        for attempt in 0.. {
            let found = self.0.api.get(block).await;
            self.0.freshness.observe_read(&found, boot_time());
            match found {
                Ok(found) if found.owner(node) == Owner::ThisNode => return Some(found),
                Ok(found) if found.owner(node) == Owner::Unknown => {
                    tracing::debug!(
                        block,
                        "the agent can't decode the block that it tried to claim, so it can't tell whether the claim succeeded; the agent reads the block again"
                    );
                }
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => {
                    tracing::debug!(block, %error, "the agent does not know whether its claim of a block succeeded, and reading the block failed; the agent retries the read");
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
