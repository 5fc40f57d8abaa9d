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
use kube::api::{ListParams, PostParams};

use super::transition::{self, best_of, claimed};
use super::{ClaimError, Claims, DEADLINE, ROUNDS, Standing, standing, unreachable};
use crate::watch::NodeFacts;

/// How many free blocks a fall-back list shows.
const LIST_LIMIT: u32 = 500;

/// Told once when the outcome of a claim can't be found out at once; the claim goes on.
pub(crate) type Doubt<'a> = &'a (dyn Fn(ClaimError) + Send + Sync);

impl Claims {
    /// Finds a free block and claims it; the answer is the API server's own.
    pub(super) async fn confirmed(
        &self,
        pool: &AddressPool,
        node: &NodeFacts,
        doubt: Doubt<'_>,
    ) -> Result<AddressBlock, ClaimError> {
        let pool_name = pool.name_any();
        let mut passed = HashSet::new();
        if let Some(free) = self.look_by_hash(pool, node).await? {
            match self.try_claim(free, node, doubt).await? {
                Ok(ours) => return Ok(ours),
                Err(lost) => passed.insert(lost),
            };
        }
        for _ in 0..ROUNDS {
            let listed = self.list_free(&pool_name).await?;
            let seed = self.seed();
            let Some(free) = best_of(listed, &passed, &node.name, seed, Timestamp::now(), pool.spec.cooldown_seconds)
            else {
                return Err(ClaimError::PoolFull(pool_name));
            };
            match self.try_claim(free, node, doubt).await? {
                Ok(ours) => return Ok(ours),
                Err(lost) => passed.insert(lost),
            };
        }
        Err(ClaimError::Contended(pool_name))
    }

    /// Reads one block of the window in the pool's status; `None` when that one is not to be had, or still rests.
    async fn look_by_hash(&self, pool: &AddressPool, node: &NodeFacts) -> Result<Option<AddressBlock>, ClaimError> {
        let pool_name = pool.name_any();
        let Some(window) = pool.status.as_ref().and_then(|status| status.free_window) else { return Ok(None) };
        let (Ok(first), Ok(last)) = (u64::try_from(window.first), u64::try_from(window.last)) else { return Ok(None) };
        let Some(index) = candidates(&node.name, &pool_name, first, last, self.seed()).next() else { return Ok(None) };
        let block = name::block(&pool_name, i64::try_from(index).unwrap_or(i64::MAX));
        match bobbin_apiserver::read(DEADLINE, self.api().get(&block)).await {
            Ok(block) if transition::is_rested(&block, Timestamp::now(), pool.spec.cooldown_seconds) => {
                Ok((standing(&block, node) == Standing::Free).then_some(block))
            }
            Ok(_) | Err(ReadError::NotFound) => Ok(None),
            Err(error) => Err(unreachable(&pool_name, &error)),
        }
    }

    async fn list_free(&self, pool: &str) -> Result<Vec<AddressBlock>, ClaimError> {
        let free = ListParams::default().fields(&format!("spec.poolName={pool},spec.nodeName=")).limit(LIST_LIMIT);
        let listed = bobbin_apiserver::read(DEADLINE, self.api().list(&free)).await;
        listed.map(|list| list.items).map_err(|error| unreachable(pool, &error))
    }

    /// One update of one block. `Ok(Err(name))`: somebody else was quicker.
    async fn try_claim(
        &self,
        free: AddressBlock,
        node: &NodeFacts,
        doubt: Doubt<'_>,
    ) -> Result<Result<AddressBlock, String>, ClaimError> {
        let block = free.name_any();
        let pool = free.spec.pool_name.clone();
        let rested_since = free.spec.free_since.clone();
        // The answer says no more when the block became free; its addresses still rest.
        let with_rest = |mut ours: AddressBlock| {
            ours.spec.free_since.clone_from(&rested_since);
            ours
        };
        let wanted = claimed(free, node);
        match bobbin_apiserver::write(DEADLINE, self.api().replace(&block, &PostParams::default(), &wanted)).await {
            Outcome::Done(ours) => Ok(Ok(with_rest(ours))),
            Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => {
                self.0.conflicts.inc();
                Ok(Err(block))
            }
            Outcome::Refused(refusal) => {
                Err(ClaimError::NotReady { pool, node: node.name.clone(), why: format!("block {block}: {refusal}") })
            }
            Outcome::Unknown(why) => {
                tracing::warn!(block, %why, "the outcome of a claim is unknown; the block is read back and not used until then");
                let untold =
                    || doubt(ClaimError::Unreachable { pool: pool.clone(), why: format!("block {block}: {why}") });
                match self.read_back(&block, node, untold).await {
                    Some(ours) => Ok(Ok(with_rest(ours))),
                    None => Ok(Err(block)),
                }
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
