//! Claims a free block for this node and gives one back (design §6). Called by stock and adopt only; it decides nothing about when,
//! and builds on no write whose outcome it does not know.

mod export;
mod transition;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_addressing::Reserved;
use bobbin_addressing::window::candidates;
use bobbin_apiserver::{Clients, Outcome, ReadError, Refusal, UnknownWhy};
use bobbin_crds::{AddressBlock, AddressPool, name};
use jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use prometheus_client::metrics::counter::Counter;

use crate::choose::pool_facts;
use crate::ledger::{HeldBlock, Ledger};
use crate::watch::{ClusterView, NodeFacts};
pub use export::{ExportFailed, Exports};
pub(crate) use transition::{Standing, held, resting_since, standing};
use transition::{best_of, claimed, released};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many free blocks a fall-back list shows.
const LIST_LIMIT: u32 = 500;
/// How often a lost race is run again within one claim.
const ROUNDS: usize = 3;

/// Why no block was claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The pool has no free block.
    #[error("pool {0:?} has no free block")]
    PoolFull(String),
    /// The pool does not let this node claim now.
    #[error("pool {pool:?} lets node {node} claim no block: {why}")]
    NotReady {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
    /// `maxBlocksPerNode` is reached.
    #[error("node {node} has {most} blocks of pool {pool:?}, as many as its maxBlocksPerNode allows")]
    Limit {
        /// The pool.
        pool: String,
        /// The node.
        node: String,
        /// The limit.
        most: i64,
    },
    /// The API server did not answer; nothing is held by it.
    #[error("no block of pool {pool:?} could be claimed: {why}")]
    Unreachable {
        /// The pool.
        pool: String,
        /// What failed.
        why: String,
    },
    /// Other nodes were quicker, each time.
    #[error("other nodes were quicker to claim blocks of pool {0:?}")]
    Contended(String),
    /// A claim in this pool is under way.
    #[error("a claim in pool {0:?} is under way")]
    Busy(String),
    /// The block is ours but its route can't be exported; it is not used.
    #[error(transparent)]
    Export(#[from] ExportFailed),
}

/// Why a block was not given back. It is still, or again, the node's, unless the ledger says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum GiveBackError {
    /// An address of it is in use.
    #[error("block {0} is in use")]
    StillUsed(String),
    /// The API server did not answer; the block stays out of use until it does.
    #[error("block {block} could not be given back: {why}")]
    Unreachable {
        /// The block.
        block: String,
        /// What failed.
        why: String,
    },
    /// Its route could not be withdrawn, so it stays.
    #[error(transparent)]
    Export(#[from] ExportFailed),
}

/// Claims and gives back. Cheap to clone.
#[derive(Clone)]
pub struct Claims(Arc<Inner>);

struct Inner {
    clients: Clients,
    view: ClusterView,
    ledger: Arc<Ledger>,
    exports: Arc<dyn Exports>,
    /// Pools in which a claim is under way.
    under_way: Mutex<HashSet<String>>,
    /// Blocks that are on their way back.
    going_back: Mutex<HashSet<String>>,
    attempts: AtomicU64,
    conflicts: Counter,
}

impl Claims {
    /// Claims for the node of `view` into `ledger`.
    pub fn new(clients: Clients, view: ClusterView, ledger: Arc<Ledger>, exports: Arc<dyn Exports>) -> Claims {
        Claims(Arc::new(Inner {
            clients,
            view,
            ledger,
            exports,
            under_way: Mutex::default(),
            going_back: Mutex::default(),
            attempts: AtomicU64::new(0),
            conflicts: Counter::default(),
        }))
    }

    /// The count of races lost to other nodes, to be shown.
    pub fn conflicts(&self) -> Counter {
        self.0.conflicts.clone()
    }

    /// Claims a block of a pool: confirmed by the API server, then exported, then in the ledger. Two calls as a rule, three when the
    /// block that was looked at is not free; however large the pool, however old what the view says. One claim per pool at a time.
    ///
    /// # Errors
    /// See [`ClaimError`]. After an unknown outcome the block is read back until it is known whose it is, so no error leaves a block
    /// behind that is ours without being in the ledger.
    pub async fn claim(&self, pool: &str) -> Result<HeldBlock, ClaimError> {
        let _turn = Turn::take(&self.0.under_way, pool).ok_or_else(|| ClaimError::Busy(pool.to_owned()))?;
        let (known, node) = self.admission(pool)?;
        let block = self.confirmed(&known, &node).await?;
        self.take_in(&block, Some(&known)).await
    }

    /// Exports a block that the API server says is ours, then puts it into the ledger.
    pub(crate) async fn take_in(
        &self,
        block: &AddressBlock,
        pool: Option<&AddressPool>,
    ) -> Result<HeldBlock, ClaimError> {
        let held = held(block).map_err(|why| ClaimError::NotReady {
            pool: block.spec.pool_name.clone(),
            node: self.0.view.node_name().to_owned(),
            why,
        })?;
        self.0.exports.export(held.range).await?;
        let cooldown = pool.map_or(0, |pool| pool.spec.cooldown_seconds.max(0).unsigned_abs());
        let cooldown = Duration::from_secs(cooldown);
        let resting = resting_since(&held, cooldown, Timestamp::now(), bobbin_kernel::boot_time());
        let reserved = pool.and_then(|pool| Reserved::parse(&pool.spec.reserved).ok()).unwrap_or_default();
        self.0.ledger.add_block(held.clone(), resting, &reserved);
        tracing::info!(block = held.name, pool = held.pool, "claimed a block");
        Ok(held)
    }

    /// Why no claim can even be tried in a pool; `None`: it can.
    pub fn refused(&self, pool: &str) -> Option<ClaimError> {
        self.admission(pool).err()
    }

    fn admission(&self, pool: &str) -> Result<(Arc<AddressPool>, NodeFacts), ClaimError> {
        let name = self.0.view.node_name().to_owned();
        let refuse =
            |why: &str| ClaimError::NotReady { pool: pool.to_owned(), node: name.clone(), why: why.to_owned() };
        let node = self.0.view.node().ok_or_else(|| refuse("its Node object has not been seen yet"))?;
        let known = self.0.view.pool(pool).ok_or_else(|| refuse("there is no such pool"))?;
        let facts = pool_facts(&known, None, Some(&node));
        if facts.deleting || facts.draining {
            return Err(refuse(if facts.deleting { "it is being deleted" } else { "it is draining" }));
        }
        if !facts.admits_node {
            return Err(refuse("its nodeSelector does not admit the node"));
        }
        if !facts.ready {
            return Err(refuse(facts.not_ready_why.unwrap_or("it is not ready yet")));
        }
        let have = self.0.ledger.blocks().iter().filter(|block| block.pool == pool).count();
        match known.spec.max_blocks_per_node {
            Some(most) if i64::try_from(have).is_ok_and(|have| have >= most) => {
                Err(ClaimError::Limit { pool: pool.to_owned(), node: name, most })
            }
            _ => Ok((known, node)),
        }
    }

    /// Finds a free block and claims it; the answer is the API server's own.
    async fn confirmed(&self, pool: &AddressPool, node: &NodeFacts) -> Result<AddressBlock, ClaimError> {
        let pool_name = pool.name_any();
        let mut passed = HashSet::new();
        if let Some(free) = self.look_by_hash(pool, node).await? {
            match self.try_claim(free, node).await? {
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
            match self.try_claim(free, node).await? {
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
                match self.read_back(&block, node, &why).await {
                    Some(ours) => Ok(Ok(with_rest(ours))),
                    None => Ok(Err(block)),
                }
            }
        }
    }

    /// Reads a block until it is known whether it is ours.
    async fn read_back(&self, block: &str, node: &NodeFacts, why: &UnknownWhy) -> Option<AddressBlock> {
        tracing::debug!(block, %why, "reading a block back");
        for attempt in 0.. {
            match bobbin_apiserver::read(DEADLINE, self.api().get(block)).await {
                Ok(found) if standing(&found, node) == Standing::Ours => return Some(found),
                Ok(_) | Err(ReadError::NotFound) => return None,
                Err(error) => tracing::debug!(block, %error, "a block can't be read back yet"),
            }
            let pause = bobbin_apiserver::backoff(attempt, Duration::from_millis(200), Duration::from_secs(3));
            tokio::time::sleep(pause).await;
        }
        None
    }

    /// Gives a block back: no assignment from it, then no route, then the block itself. Until the API server has confirmed, nothing is
    /// assigned from it.
    ///
    /// # Errors
    /// See [`GiveBackError`].
    pub async fn give_back(&self, block: &str) -> Result<(), GiveBackError> {
        let _turn = Turn::take(&self.0.going_back, block).ok_or_else(|| GiveBackError::StillUsed(block.to_owned()))?;
        let held = self.0.ledger.begin_release(block).map_err(|_| GiveBackError::StillUsed(block.to_owned()))?;
        if let Err(error) = self.0.exports.withdraw(held.range).await {
            self.keep(&held).await;
            return Err(error.into());
        }
        let Some(node) = self.0.view.node() else {
            self.keep(&held).await;
            return Err(GiveBackError::Unreachable {
                block: block.to_owned(),
                why: "the Node object is unknown".to_owned(),
            });
        };
        self.until_free(&held, &node).await;
        self.0.ledger.end_release(block, true);
        tracing::info!(block, pool = held.pool, "gave a block back");
        Ok(())
    }

    /// Tries until the API server says that the block is not ours: there is no way back, since an update whose outcome is unknown may
    /// still come true.
    async fn until_free(&self, held: &HeldBlock, node: &NodeFacts) {
        let mut known: Option<AddressBlock> = None;
        for attempt in 0.. {
            let current = match known.take() {
                Some(block) => Ok(block),
                None => bobbin_apiserver::read(DEADLINE, self.api().get(&held.name)).await,
            };
            match current {
                Err(ReadError::NotFound) => return,
                Ok(block) if standing(&block, node) != Standing::Ours => return,
                Ok(block) => {
                    let wanted = released(block, Timestamp::now());
                    let write = self.api();
                    match bobbin_apiserver::write(DEADLINE, write.replace(&held.name, &PostParams::default(), &wanted))
                        .await
                    {
                        Outcome::Done(_) | Outcome::Refused(Refusal::NotFound) => return,
                        Outcome::Refused(Refusal::Conflict) => continue,
                        Outcome::Refused(refusal) => {
                            tracing::error!(block = held.name, %refusal, "a block can't be given back; trying on");
                        }
                        Outcome::Unknown(why) => {
                            tracing::debug!(block = held.name, %why, "the outcome of a give-back is unknown");
                        }
                    }
                }
                Err(error) => tracing::debug!(block = held.name, %error, "a block that goes back can't be read"),
            }
            tokio::time::sleep(bobbin_apiserver::backoff(attempt, Duration::from_millis(200), Duration::from_secs(5)))
                .await;
        }
    }

    /// A release that was not begun at the API server is undone: route first.
    async fn keep(&self, held: &HeldBlock) {
        if let Err(error) = self.0.exports.export(held.range).await {
            tracing::error!(block = held.name, %error, "the route of a block that stays could not be put back; the next repair tries again");
        }
        self.0.ledger.end_release(&held.name, false);
    }

    /// The Node is another one under the same name, or its addresses changed: writes that into the block. `None`: it is not ours.
    ///
    /// # Errors
    /// The API server did not answer.
    pub(crate) async fn renew(&self, block: &str, node: &NodeFacts) -> Result<Option<AddressBlock>, ReadError> {
        for _ in 0..ROUNDS {
            let current = match bobbin_apiserver::read(DEADLINE, self.api().get(block)).await {
                Err(ReadError::NotFound) => return Ok(None),
                other => other?,
            };
            match standing(&current, node) {
                Standing::Ours => return Ok(Some(current)),
                Standing::Free | Standing::Others => return Ok(None),
                Standing::EarlierSelf => {}
            }
            let wanted = claimed(current, node);
            match bobbin_apiserver::write(DEADLINE, self.api().replace(block, &PostParams::default(), &wanted)).await {
                Outcome::Done(ours) => return Ok(Some(ours)),
                Outcome::Refused(Refusal::NotFound) => return Ok(None),
                Outcome::Refused(Refusal::Conflict) | Outcome::Unknown(_) => {}
                Outcome::Refused(refusal) => return Err(ReadError::Refused(refusal)),
            }
        }
        Err(ReadError::Unreachable(UnknownWhy::Deadline(DEADLINE)))
    }

    /// The blocks that name this node, freshly listed.
    pub(crate) async fn own_blocks(&self) -> Result<BTreeMap<String, AddressBlock>, ReadError> {
        let mine = ListParams::default().fields(&format!("spec.nodeName={}", self.0.view.node_name()));
        let list = bobbin_apiserver::read(DEADLINE, self.api().list(&mine)).await?;
        Ok(list.items.into_iter().map(|block| (block.name_any(), block)).collect())
    }

    /// The blocks that are on their way back.
    pub(crate) fn going_back(&self) -> HashSet<String> {
        self.0.going_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a claim in that pool is under way.
    pub(crate) fn is_claiming(&self, pool: &str) -> bool {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains(pool)
    }

    pub(crate) fn exports(&self) -> &dyn Exports {
        self.0.exports.as_ref()
    }

    fn seed(&self) -> u64 {
        self.0.attempts.fetch_add(1, Ordering::Relaxed)
    }

    fn api(&self) -> Api<AddressBlock> {
        Api::all(self.0.clients.requests.clone())
    }
}

fn unreachable(pool: &str, error: &ReadError) -> ClaimError {
    ClaimError::Unreachable { pool: pool.to_owned(), why: error.to_string() }
}

/// A name in a set while something is done to it, so that nobody else does.
struct Turn<'a> {
    under_way: &'a Mutex<HashSet<String>>,
    name: String,
}

impl<'a> Turn<'a> {
    fn take(under_way: &'a Mutex<HashSet<String>>, name: &str) -> Option<Turn<'a>> {
        let new = under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        new.then(|| Turn { under_way, name: name.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
