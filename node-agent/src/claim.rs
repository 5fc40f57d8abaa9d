//! Claims a free block for this node and gives one back. Called by stock and adopt only; it decides nothing about when,
//! and builds on no write whose outcome it does not know.

mod export;
mod find;
mod give_back;
mod transition;
mod unexported;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_addressing::Reserved;
use bobbin_apiserver::{Clients, Outcome, ReadError, Refusal, UnknownWhy};
use bobbin_crds::{AddressBlock, AddressPool};
use jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use prometheus_client::metrics::counter::Counter;

use crate::choose::pool_facts;
use crate::ledger::{HeldBlock, Ledger};
use crate::watch::{ClusterView, NodeFacts};
pub use export::{ExportFailed, Exports};
pub(crate) use find::Doubt;
use transition::claimed;
pub(crate) use transition::{Standing, held, resting_since, standing};
use unexported::Unexported;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(5);
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
    /// The block is ours but its route can't be exported; it is not used, and the next claim tries it before any other.
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
    /// Blocks that are ours but not in use, because their routes could not be exported.
    unexported: Mutex<Unexported>,
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
            unexported: Mutex::default(),
            attempts: AtomicU64::new(0),
            conflicts: Counter::default(),
        }))
    }

    /// The count of races lost to other nodes, to be shown.
    pub fn conflicts(&self) -> Counter {
        self.0.conflicts.clone()
    }

    /// Claims a block of a pool: confirmed by the API server, then exported, then in the ledger. One call as a rule and three at most,
    /// however large the pool, but for a view out of date or a race that is lost twice. One claim per pool at a time.
    ///
    /// # Errors
    /// See [`ClaimError`]. After an unknown outcome the block is read back until it is known whose it is, so no error leaves a block
    /// behind that is ours without being in the ledger.
    pub async fn claim(&self, pool: &str) -> Result<HeldBlock, ClaimError> {
        self.claim_telling(pool, &|_| {}).await
    }

    /// [`Self::claim`]; `doubt` is told once if an outcome stays unknown for longer than one read.
    pub(crate) async fn claim_telling(&self, pool: &str, doubt: Doubt<'_>) -> Result<HeldBlock, ClaimError> {
        let _turn = Turn::take(&self.0.under_way, pool).ok_or_else(|| ClaimError::Busy(pool.to_owned()))?;
        let (known, node) = self.admission(pool)?;
        // A node whose routes can't be exported must not take block after block out of the pool.
        let unexported = self.unexported().of(pool);
        for block in unexported {
            if let Some(held) = self.take_in_afresh(&block, pool, Some(&known), &node).await? {
                return Ok(held);
            }
        }
        self.within_limit(&known)?;
        let block = self.confirmed(&known, &node, doubt).await?;
        let held = self.take_in(&block, Some(&known)).await?;
        tracing::info!(block = held.name, pool, "claimed a block");
        Ok(held)
    }

    /// Takes in a block that is said to be ours and that the ledger lacks, if a read of it says so too. `None`: it is not ours, or is on
    /// its way back.
    ///
    /// # Errors
    /// As [`Self::claim`]; the block is still to be looked at.
    pub(crate) async fn adopt(
        &self,
        block: &str,
        pool: &str,
        node: &NodeFacts,
    ) -> Result<Option<HeldBlock>, ClaimError> {
        // In turn with claims: while one is under way, what it has just got it enters itself, and nothing that is in the ledger
        // by then, and may go back again, is entered a second time from an older read.
        let _turn = Turn::take(&self.0.under_way, pool).ok_or_else(|| ClaimError::Busy(pool.to_owned()))?;
        if let Some(known) = self.0.ledger.block(block) {
            return Ok(Some(known));
        }
        if self.going_back().contains(block) {
            return Ok(None);
        }
        // Of the pool only the cool-down and the reserved addresses count, and a pool that is gone has neither.
        self.take_in_afresh(block, pool, self.0.view.pool(pool).as_deref(), node).await
    }

    async fn take_in_afresh(
        &self,
        block: &str,
        pool_name: &str,
        pool: Option<&AddressPool>,
        node: &NodeFacts,
    ) -> Result<Option<HeldBlock>, ClaimError> {
        let read = self.renew(block, node).await.map_err(|error| unreachable(pool_name, &error))?;
        let Some(ours) = read else {
            self.unexported().forget(block);
            return Ok(None);
        };
        self.take_in(&ours, pool).await.map(Some)
    }

    /// Exports a block that the API server says is ours, then puts it into the ledger.
    async fn take_in(&self, block: &AddressBlock, pool: Option<&AddressPool>) -> Result<HeldBlock, ClaimError> {
        let held = held(block).map_err(|why| ClaimError::NotReady {
            pool: block.spec.pool_name.clone(),
            node: self.0.view.node_name().to_owned(),
            why,
        })?;
        if let Err(error) = self.0.exports.export(held.range).await {
            self.unexported().note(&held.name, &held.pool);
            return Err(error.into());
        }
        let cooldown = pool.map_or(0, |pool| pool.spec.cooldown_seconds.max(0).unsigned_abs());
        let cooldown = Duration::from_secs(cooldown);
        let resting = resting_since(&held, cooldown, Timestamp::now(), bobbin_kernel::boot_time());
        let reserved = pool.and_then(|pool| Reserved::parse(&pool.spec.reserved).ok()).unwrap_or_default();
        self.0.ledger.add_block(held.clone(), resting, &reserved);
        self.unexported().forget(&held.name);
        Ok(held)
    }

    /// Why no claim can even be tried in a pool; `None`: it can.
    pub fn refused(&self, pool: &str) -> Option<ClaimError> {
        self.admission(pool).and_then(|(known, _)| self.within_limit(&known)).err()
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
        Ok((known, node))
    }

    fn within_limit(&self, pool: &AddressPool) -> Result<(), ClaimError> {
        let name = pool.name_any();
        let in_use = self.0.ledger.blocks().iter().filter(|block| block.pool == name).count();
        let have = in_use + self.unexported().of(&name).len();
        match pool.spec.max_blocks_per_node {
            Some(most) if i64::try_from(have).is_ok_and(|have| have >= most) => {
                Err(ClaimError::Limit { pool: name, node: self.0.view.node_name().to_owned(), most })
            }
            _ => Ok(()),
        }
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

    pub(crate) fn exports(&self) -> &dyn Exports {
        self.0.exports.as_ref()
    }

    fn unexported(&self) -> MutexGuard<'_, Unexported> {
        self.0.unexported.lock().unwrap_or_else(PoisonError::into_inner)
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
