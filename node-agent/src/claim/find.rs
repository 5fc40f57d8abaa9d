//! Finds a free block and claims it: the calls of one claim to the API server. Called by claim only; it exports nothing and enters nothing
//! into the ledger.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_addressing::window::candidates;
use bobbin_apiserver::{Outcome, ReadError, Refusal};
use bobbin_crds::{AddressBlock, AddressPool, name};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};

use super::transition::{self, best_of, claimed};
use super::{ClaimError, Claims, DEADLINE, ROUNDS, Standing, standing, unreachable};
use crate::watch::NodeFacts;

/// How many free blocks a fall-back list shows.
const LIST_LIMIT: u32 = 500;
/// How many blocks are tried unread at most.
const GUESSES: usize = 3;

/// Told once when the outcome of a claim can't be found out at once; the claim goes on.
pub(crate) type Doubt<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

/// What became of one try to claim one block.
enum Shot {
    Ours(Box<AddressBlock>),
    /// Somebody else was quicker.
    Taken,
    /// There is no such block.
    Gone,
}

/// The blocks to try unread, in this node's own order: as many as make a fourth call rare where most of the window is free,
/// however many nodes claim at once, else one. A block that still rests may be among them; its addresses rest on, and the node
/// claims another for the pods that wait. Where it may not have another, so it tries none unread.
fn guesses(pool: &AddressPool, node: &str, seed: u64) -> impl Iterator<Item = i64> + use<> {
    let window = pool.status.as_ref().and_then(|status| status.free_window);
    let span = window.and_then(|window| Some((u64::try_from(window.first).ok()?, u64::try_from(window.last).ok()?)));
    let most_are_free = window.is_some_and(|window| window.free * 4 > (window.last - window.first + 1) * 3);
    let few = if most_are_free { GUESSES } else { 1 };
    let few = if pool.spec.max_blocks_per_node.is_some() { 0 } else { few };
    let order = span.map(|(first, last)| candidates(node, &pool.name_any(), first, last, seed));
    order.into_iter().flatten().take(few).filter_map(|index| index.try_into().ok())
}

impl Claims {
    /// Finds a free block and claims it; the answer is the API server's own.
    pub(super) async fn confirmed(
        &self,
        pool: &AddressPool,
        node: &NodeFacts,
        doubt: Doubt<'_>,
    ) -> Result<AddressBlock, ClaimError> {
        let pool_name = pool.name_any();
        // Not the node's own: such a block is in the ledger until it has gone back, or waits for its route.
        let waiting = self.unexported().of(&pool_name);
        let others = |block: &String| self.0.ledger.block(block).is_none() && !waiting.contains(block);
        for block in guesses(pool, &node.name, self.seed()).map(|index| name::block(&pool_name, index)).filter(others) {
            match self.settle(&pool_name, &block, node, doubt, self.patch(&block, node)).await? {
                Shot::Ours(ours) => return Ok(*ours),
                Shot::Taken => {}
                // What the window says is out of date.
                Shot::Gone => break,
            }
        }
        let mut passed = HashSet::new();
        for _ in 0..ROUNDS {
            let listed = self.list_free(&pool_name).await?;
            let seed = self.seed();
            let Some(free) = best_of(listed, &passed, &node.name, seed, Timestamp::now(), pool.spec.cooldown_seconds)
            else {
                return Err(ClaimError::PoolFull(pool_name));
            };
            let block = free.name_any();
            match self.settle(&pool_name, &block, node, doubt, self.replace(&block, free, node)).await? {
                Shot::Ours(ours) => return Ok(*ours),
                Shot::Taken | Shot::Gone => passed.insert(block),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Claims a block that was not read: the API server applies this to what the block is at that moment, or refuses it.
    async fn patch(&self, block: &str, node: &NodeFacts) -> Outcome<AddressBlock> {
        match serde_json::from_value(transition::claim_patch(node)) {
            Ok(patch) => {
                let patch: Patch<()> = Patch::Json(patch);
                bobbin_apiserver::write(DEADLINE, self.api().patch(block, &PatchParams::default(), &patch)).await
            }
            Err(error) => Outcome::Refused(Refusal::Invalid(error.to_string())),
        }
    }

    /// Claims a block as it was read.
    async fn replace(&self, block: &str, free: AddressBlock, node: &NodeFacts) -> Outcome<AddressBlock> {
        let wanted = claimed(free, node);
        match bobbin_apiserver::write(DEADLINE, self.api().replace(block, &PostParams::default(), &wanted)).await {
            // Of a block as it was read, that is no lost race.
            Outcome::Refused(Refusal::Invalid(why)) => Outcome::Refused(Refusal::Other(422, why)),
            outcome => outcome,
        }
    }

    async fn list_free(&self, pool: &str) -> Result<Vec<AddressBlock>, ClaimError> {
        let free = ListParams::default().fields(&format!("spec.poolName={pool},spec.nodeName=")).limit(LIST_LIMIT);
        let listed = bobbin_apiserver::read(DEADLINE, self.api().list(&free)).await;
        listed.map(|list| list.items).map_err(|error| unreachable(pool, &error))
    }

    /// What became of one try. An outcome that nobody knows is found out first.
    async fn settle(
        &self,
        pool: &str,
        block: &str,
        node: &NodeFacts,
        doubt: Doubt<'_>,
        write: impl Future<Output = Outcome<AddressBlock>>,
    ) -> Result<Shot, ClaimError> {
        match write.await {
            Outcome::Done(ours) => Ok(Shot::Ours(Box::new(ours))),
            Outcome::Refused(Refusal::Conflict | Refusal::Invalid(_)) => {
                self.0.conflicts.inc();
                Ok(Shot::Taken)
            }
            Outcome::Refused(Refusal::NotFound) => Ok(Shot::Gone),
            Outcome::Refused(refusal) => Err(ClaimError::NotReady {
                pool: pool.to_owned(),
                node: node.name.clone(),
                why: format!("block {block}: {refusal}"),
            }),
            Outcome::Unknown(why) => {
                tracing::warn!(block, %why, "the outcome of a claim is unknown; the block is read back and not used until then");
                let untold =
                    || doubt(ClaimError::Unreachable { pool: pool.to_owned(), why: format!("block {block}: {why}") });
                let ours = self.read_back(block, node, untold).await;
                Ok(ours.map_or(Shot::Taken, |ours| Shot::Ours(Box::new(ours))))
            }
        }
    }

    /// Reads a block until it is known whether it is ours; says so once if the first read can't tell.
    async fn read_back(&self, block: &str, node: &NodeFacts, doubt: impl Fn()) -> Option<AddressBlock> {
        for attempt in 0.. {
            match bobbin_apiserver::read(DEADLINE, self.api().get(block)).await {
                Ok(found) if standing(&found, node) == Standing::Ours => return Some(found),
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => tracing::debug!(block, %error, "a block can't be read back yet"),
            }
            if attempt == 0 {
                doubt();
            }
            let pause = bobbin_apiserver::backoff(attempt, Duration::from_millis(200), Duration::from_secs(3));
            tokio::time::sleep(pause).await;
        }
        None
    }

    fn seed(&self) -> u64 {
        self.0.attempts.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
