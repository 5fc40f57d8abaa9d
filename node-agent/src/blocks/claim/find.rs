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
use crate::blocks::read::{BlockRead, Owner, best_of};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::ReadStart;
use crate::state::{BlockEvent, ClaimedBlock};

/// How often a lost race is run again within one claim.
const ROUNDS: usize = 3;
/// How many blocks are tried unread at most.
const UNREAD: usize = 3;
/// The first pause between two reads of a block whose claim has an unknown outcome, and the longest.
const READ_BACK_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];

/// Told once when the outcome of a claim can't be found out at once; the claim goes on.
pub(crate) type OnUnknown<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

/// What became of one attempt to claim one block.
enum ClaimAttempt {
    Ours(ClaimedBlock),
    /// Somebody else was quicker, or it is in the ledger already.
    Taken,
    /// There is no such block.
    Gone,
}

/// One attempt: the block, and whether it had our finalizer before.
struct Attempt<'a> {
    pool: &'a AddressPool,
    node: &'a NodeInfo,
    block: &'a str,
    had_finalizer: bool,
    start: ReadStart,
}

/// The blocks to try unread, in this node's own order: as many as make a fourth call rare where most of the window is free, however
/// many nodes claim at once, else one. A block that still cools may be among them; its addresses cool on, and if the node needs one that
/// has cooled it reads first. Where the node may not have another, it tries none unread.
fn unread_candidates(pool: &AddressPool, node: &str, seed: u64) -> impl Iterator<Item = i64> + use<> {
    let window = pool.status.as_ref().and_then(|status| status.free_window);
    let span = window.and_then(|window| Some((u64::try_from(window.first).ok()?, u64::try_from(window.last).ok()?)));
    let most_are_free = window.is_some_and(|window| {
        i128::from(window.free) * 4 > (i128::from(window.last) - i128::from(window.first) + 1) * 3
    });
    let few = if most_are_free { UNREAD } else { 1 };
    let few = if pool.spec.max_blocks_per_node.is_some() { 0 } else { few };
    let order = span.map(|(first, last)| candidates(node, &pool.name_any(), first, last, seed));
    order.into_iter().flatten().take(few).filter_map(|index| index.try_into().ok())
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
        let unread = unread_candidates(pool, &node.name, self.seed()).filter(|_| !cooled_only);
        for block in unread.map(|index| name::block(&pool_name, index)) {
            let start = self.0.freshness.begin_read(boot_time());
            let attempt = Attempt { pool, node, block: &block, had_finalizer: false, start };
            match self.attempt(&attempt, None, on_unknown).await? {
                ClaimAttempt::Ours(held) => return Ok(held),
                ClaimAttempt::Taken => {}
                // What the window says is out of date.
                ClaimAttempt::Gone => break,
            }
        }
        let cooldown = pool.spec.cooldown();
        let mut passed = HashSet::new();
        for _ in 0..ROUNDS {
            let start = self.0.freshness.begin_read(boot_time());
            let listed = self.0.api.list_free(&pool_name).await.map_err(|error| unreachable(&pool_name, &error))?;
            let any = !listed.is_empty();
            let may_claim = |block: &str| !passed.contains(block) && self.0.node_state.block_state(block).is_none();
            let best = best_of(listed, &node.name, self.seed(), Timestamp::now(), cooldown, cooled_only, may_claim);
            let Some(free) = best else {
                let full = ClaimError::PoolFull(pool_name.clone());
                return Err(if cooled_only && any { ClaimError::OnlyCooling(pool_name) } else { full });
            };
            let attempt = Attempt { pool, node, block: &free.name, had_finalizer: free.finalizer, start };
            match self.attempt(&attempt, Some(&free), on_unknown).await? {
                ClaimAttempt::Ours(held) => return Ok(held),
                ClaimAttempt::Taken | ClaimAttempt::Gone => passed.insert(free.name.clone()),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Tries to claim one block, unread or as it was read. The ledger has it as `claiming` until the outcome is known.
    async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        read: Option<&BlockRead>,
        on_unknown: OnUnknown<'_>,
    ) -> Result<ClaimAttempt, ClaimError> {
        let pool = attempt.pool.name_any();
        if !self.0.node_state.begin_claim(attempt.block, &pool) {
            return Ok(ClaimAttempt::Taken);
        }
        let written = match read {
            Some(read) => self.0.api.claim(read, attempt.node).await,
            None => self.0.api.claim_unread(attempt.block, attempt.node).await,
        };
        let not_ours = match written {
            Outcome::Done(ours) => return self.arrived(attempt, &ours),
            Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => {
                self.0.conflicts.inc();
                Ok(ClaimAttempt::Taken)
            }
            Outcome::Refused(Refusal::NotFound) => Ok(ClaimAttempt::Gone),
            Outcome::Refused(refusal) => Err(ClaimError::NotReady {
                pool: pool.clone(),
                node: attempt.node.name.clone(),
                why: format!("block {}: {refusal}", attempt.block),
            }),
            Outcome::Unknown(why) => {
                self.0.freshness.outcome(Some(&why), boot_time());
                let block = attempt.block;
                tracing::warn!(block, %why, "the outcome of a claim is unknown; the block is read back and not used until then");
                let tell =
                    || on_unknown(ClaimError::Unreachable { pool: pool.clone(), why: format!("block {block}: {why}") });
                match self.read_back(block, attempt.node, tell).await {
                    Some(ours) => return self.arrived(attempt, &ours),
                    None => Ok(ClaimAttempt::Taken),
                }
            }
        };
        self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
        not_ours
    }

    fn arrived(&self, attempt: &Attempt<'_>, ours: &BlockRead) -> Result<ClaimAttempt, ClaimError> {
        // First: this may be the first answer after an outage, and then the block is not to serve at once.
        self.0.freshness.answered(boot_time());
        let taken = self.take_in(ours, attempt.had_finalizer, Some(attempt.pool), attempt.start, true);
        let held = taken.map_err(|why| {
            self.0.node_state.on(attempt.block, BlockEvent::ClaimFailed);
            ClaimError::NotReady { pool: attempt.pool.name_any(), node: attempt.node.name.clone(), why }
        })?;
        // The Node may be another one by now.
        if self.0.view.node().is_none_or(|node| ours.owner(&node) != Owner::Us) {
            self.0.node_state.on(&held.name, BlockEvent::Doubt);
        }
        Ok(ClaimAttempt::Ours(held))
    }

    /// Reads a block until it is known whether it is ours; says so once if the first read can't tell.
    async fn read_back(&self, block: &str, node: &NodeInfo, tell: impl Fn()) -> Option<BlockRead> {
        for attempt in 0.. {
            match self.0.api.get(block).await {
                Ok(found) if found.owner(node) == Owner::Us => return Some(found),
                Ok(found) if found.owner(node) == Owner::Unknown => {
                    tracing::debug!(block, "a block can't be read, so it counts as claimed");
                }
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.0.freshness.outcome(Some(why), boot_time());
                    }
                    tracing::debug!(block, %error, "a block can't be read back yet");
                }
            }
            if attempt == 0 {
                tell();
            }
            tokio::time::sleep(bobbin_api_client::backoff(attempt, READ_BACK_PAUSES[0], READ_BACK_PAUSES[1])).await;
        }
        None
    }

    fn seed(&self) -> u64 {
        self.0.attempts.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
