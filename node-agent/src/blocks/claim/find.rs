//! Finds a free block and claims it: the calls of one claim to the API server.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_crds::{AddressPool, name};
use bobbin_datapath::boot_time;
use bobbin_ipam::claim_order::candidates;
use jiff::Timestamp;
use kube::ResourceExt;

use super::{ClaimError, Claims, unreachable};
use crate::blocks::read::{BlockInfo, Owner, best_free_block};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::ReadStart;
use crate::state::{BlockEvent, ClaimedBlock};

/// How often a lost race is run again within one claim.
const MAX_CONTENDED_ROUNDS: usize = 3;
/// How many blocks are tried optimistic at most.
const MAX_OPTIMISTIC_CANDIDATES: usize = 3;
/// The first pause between two reads of a block whose claim has an unknown outcome, and the longest.
const READ_BACK_BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];

/// Told once when the outcome of a claim can't be found out at once; the claim goes on.
pub(crate) type OnUnknown<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

/// What became of one attempt to claim one block.
enum AttemptResult {
    Claimed(ClaimedBlock),
    /// Somebody else was quicker, or it is in the ledger already.
    Taken,
    /// There is no such block.
    Gone,
}

/// One attempt: the block, and whether it had our finalizer before.
struct ClaimAttempt<'a> {
    pool: &'a AddressPool,
    node: &'a NodeInfo,
    block: &'a str,
    had_finalizer: bool,
    start: ReadStart,
}

/// The blocks to try optimistic, in this node's own order: as many as make a fourth call rare where most of the window is free, however
/// many nodes claim at once, else one. A block that still cools may be among them; its addresses cool on, and if the node needs one that
/// has cooled it reads first. Where the node may not have another, it tries none optimistic.
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
    /// Finds a free block, claims it, and takes it into the ledger.
    pub(super) async fn find(
        &self,
        pool: &AddressPool,
        node: &NodeInfo,
        cooled_only: bool,
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimedBlock, ClaimError> {
        let pool_name = pool.name_any();
        let optimistic = optimistic_candidates(pool, &node.name, self.seed()).filter(|_| !cooled_only);
        for block in optimistic.map(|index| name::block(&pool_name, index)) {
            let start = self.0.freshness.begin_read(boot_time());
            let attempt = ClaimAttempt { pool, node, block: &block, had_finalizer: false, start };
            match self.attempt(&attempt, None, on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                AttemptResult::Taken => {}
                // What the window says is out of date.
                AttemptResult::Gone => break,
            }
        }
        let cooldown = pool.spec.cooldown();
        let mut tried = HashSet::new();
        for _ in 0..MAX_CONTENDED_ROUNDS {
            let start = self.0.freshness.begin_read(boot_time());
            let listed = self.0.api.list_free(&pool_name).await.map_err(|error| unreachable(&pool_name, &error))?;
            let any = !listed.is_empty();
            let may_claim = |block: &str| !tried.contains(block) && self.0.node_state.block_state(block).is_none();
            let best =
                best_free_block(listed, &node.name, self.seed(), Timestamp::now(), cooldown, cooled_only, may_claim);
            let Some(free) = best else {
                let full = ClaimError::PoolFull(pool_name.clone());
                return Err(if cooled_only && any { ClaimError::OnlyCooling(pool_name) } else { full });
            };
            let attempt = ClaimAttempt { pool, node, block: &free.name, had_finalizer: free.finalizer, start };
            match self.attempt(&attempt, Some(&free), on_unknown).await? {
                AttemptResult::Claimed(held) => return Ok(held),
                AttemptResult::Taken | AttemptResult::Gone => tried.insert(free.name.clone()),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Tries to claim one block, optimistic or as it was read. The ledger has it as `claiming` until the outcome is known.
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
        let written = match read {
            Some(read) => self.0.api.claim(read, attempt.node).await,
            None => self.0.api.claim_optimistically(attempt.block, attempt.node).await,
        };
        let failed = match written {
            Outcome::Done(block) => return self.claimed(attempt, &block),
            Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => {
                self.0.conflicts.inc();
                Ok(AttemptResult::Taken)
            }
            Outcome::Refused(Refusal::NotFound) => Ok(AttemptResult::Gone),
            Outcome::Refused(refusal) => Err(ClaimError::NotReady {
                pool: pool.clone(),
                node: attempt.node.name.clone(),
                why: format!("block {}: {refusal}", attempt.block),
            }),
            Outcome::Unknown(why) => {
                self.0.freshness.observe_call(Some(&why), boot_time());
                let block = attempt.block;
                tracing::warn!(block, %why, "the outcome of a claim is unknown; the block is read back and not used until then");
                let tell =
                    || on_unknown(ClaimError::Unreachable { pool: pool.clone(), why: format!("block {block}: {why}") });
                match self.read_back(block, attempt.node, tell).await {
                    Some(block) => return self.claimed(attempt, &block),
                    None => Ok(AttemptResult::Taken),
                }
            }
        };
        self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
        failed
    }

    fn claimed(&self, attempt: &ClaimAttempt<'_>, block: &BlockInfo) -> Result<AttemptResult, ClaimError> {
        // First: this may be the first answer after an outage, and then the block is not to serve at once.
        self.0.freshness.answered(boot_time());
        let added = self.add_owned(block, attempt.had_finalizer, Some(attempt.pool), attempt.start, true);
        let held = added.map_err(|why| {
            self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
            ClaimError::NotReady { pool: attempt.pool.name_any(), node: attempt.node.name.clone(), why }
        })?;
        // The Node may be another one by now.
        if self.0.cluster.node().is_none_or(|node| block.owner(&node) != Owner::ThisNode) {
            self.0.node_state.on(&held.name, BlockEvent::Doubt);
        }
        Ok(AttemptResult::Claimed(held))
    }

    /// Reads a block until it is known whether it is block; says so once if the first read can't tell.
    async fn read_back(&self, block: &str, node: &NodeInfo, tell: impl Fn()) -> Option<BlockInfo> {
        for attempt in 0.. {
            match self.0.api.get(block).await {
                Ok(found) if found.owner(node) == Owner::ThisNode => return Some(found),
                Ok(found) if found.owner(node) == Owner::Unknown => {
                    tracing::debug!(block, "a block can't be read, so it counts as claimed");
                }
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.0.freshness.observe_call(Some(why), boot_time());
                    }
                    tracing::debug!(block, %error, "a block can't be read back yet");
                }
            }
            if attempt == 0 {
                tell();
            }
            tokio::time::sleep(bobbin_api_client::backoff(attempt, READ_BACK_BACKOFF[0], READ_BACK_BACKOFF[1])).await;
        }
        None
    }

    fn seed(&self) -> u64 {
        self.0.attempts.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
