//! Writes to the blocks of one pool: creates, deletes, and takes the finalizer off those that are free. Never changes who has one.

use bobbin_addressing::BlockRange;
use bobbin_apiserver::{Outcome, Refusal, write};
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use futures::StreamExt;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};

use super::TurnError;
use super::write::{WRITE, live};
use crate::facts::{BlockFact, PoolView};
use crate::finish;
use crate::layout::{PoolShape, accepted_entries};
use crate::run::Shared;
use crate::status;

/// How many writes are under way at once.
const AT_ONCE: usize = 16;

fn api(shared: &Shared) -> Api<AddressBlock> {
    Api::all(shared.clients.requests.clone())
}

/// Whether the pool still is what the decision to carve was made on: the same, not deleted, its entries accepted.
///
/// Without this look an operator that was asleep could carve a range that another pool has been given since.
pub(super) async fn may_carve(shared: &Shared, pool: &AddressPool) -> Result<bool, TurnError> {
    let live = live(shared, pool.metadata.name.as_deref().unwrap_or_default()).await?;
    let same = live.metadata.uid == pool.metadata.uid && live.metadata.deletion_timestamp.is_none();
    if !same || accepted_entries(live.status.as_ref()) != accepted_entries(pool.status.as_ref()) {
        return Err(TurnError::Stale);
    }
    Ok(!live.spec.draining)
}

/// Creates blocks. Returns those that were created; one that is there already is as good, and the watch will show it.
pub(super) async fn create(
    shared: &Shared,
    pool: &str,
    shape: &PoolShape,
    indices: &[u64],
) -> Result<Vec<BlockFact>, TurnError> {
    let blocks: Vec<AddressBlock> = indices.iter().filter_map(|index| block(pool, shape, *index)).collect();
    let creations: Vec<_> = blocks.into_iter().map(|block| create_one(api(shared), block)).collect();
    let outcomes: Vec<_> = futures::stream::iter(creations).buffer_unordered(AT_ONCE).collect().await;
    let (mut created, mut failed) = (Vec::new(), None);
    for outcome in outcomes {
        match outcome {
            Outcome::Done(block) => created.push(fact(&block)),
            Outcome::Refused(Refusal::AlreadyExists) => {}
            Outcome::Refused(why) => failed = Some(TurnError::Refused { what: "a new block", why }),
            // Read back by the watch: if it is there it shows, if not the next turn creates it.
            Outcome::Unknown(why) => failed = failed.or(Some(TurnError::Unknown { what: "a new block", why })),
        }
    }
    shared.metrics.carved.inc_by(created.len() as u64);
    match failed {
        Some(error) if created.is_empty() => Err(error),
        _ => Ok(created),
    }
}

async fn create_one(api: Api<AddressBlock>, block: AddressBlock) -> Outcome<AddressBlock> {
    write(WRITE, async { api.create(&PostParams::default(), &block).await }).await
}

fn block(pool: &str, shape: &PoolShape, index: u64) -> Option<AddressBlock> {
    let range = shape.layout.block(index)?;
    let index = i64::try_from(index).ok()?;
    let spec = AddressBlockSpec {
        pool_name: pool.to_owned(),
        index,
        ipv4: range.ipv4.map(|net| net.to_string()),
        ipv6: range.ipv6.map(|net| net.to_string()),
        ..AddressBlockSpec::default()
    };
    Some(AddressBlock::new(&name::block(pool, index), spec))
}

fn fact(block: &AddressBlock) -> BlockFact {
    BlockFact {
        index: u64::try_from(block.spec.index).unwrap_or(u64::MAX),
        range: BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok(),
        node: None,
        finalizer: false,
        deleting: false,
        uid: block.metadata.uid.clone().unwrap_or_default().into(),
        version: block.metadata.resource_version.clone().unwrap_or_default().into(),
        assigned: 0,
    }
}

/// The indices of the blocks that a range touches.
pub(super) fn indices(shape: &PoolShape, range: &BlockRange) -> Vec<u64> {
    let ipv4 = range.ipv4.map(|net| net.network().into());
    let ipv6 = range.ipv6.map(|net| net.network().into());
    ipv4.into_iter().chain(ipv6).filter_map(|address| shape.layout.index_of(address)).collect()
}

/// One free block as it was seen: what a write to it is tied to.
struct Seen {
    name: String,
    uid: String,
    version: String,
}

fn seen(pool: &str, block: &BlockFact) -> Seen {
    Seen { name: format!("{pool}-{}", block.index), uid: block.uid.to_string(), version: block.version.to_string() }
}

/// Takes our finalizer off free blocks.
pub(super) async fn release(shared: &Shared, view: &PoolView, pool: &str) -> Result<(), TurnError> {
    let releases: Vec<_> = finish::releasable(view).map(|block| release_one(api(shared), seen(pool, block))).collect();
    let outcomes: Vec<_> = futures::stream::iter(releases).buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().try_for_each(|outcome| harmless("a block's finalizer", outcome))
}

async fn release_one(api: Api<AddressBlock>, block: Seen) -> Outcome<()> {
    // All of a block's finalizers are ours.
    let patch =
        serde_json::json!({"metadata": {"uid": block.uid, "resourceVersion": block.version, "finalizers": null}});
    let patch = Patch::Merge(patch);
    write(WRITE, async { api.patch(&block.name, &PatchParams::default(), &patch).await.map(|_| ()) }).await
}

/// Deletes these blocks, if they are as they were seen: free.
pub(super) fn delete<'a>(
    shared: &Shared,
    blocks: impl Iterator<Item = &'a BlockFact>,
    pool: &str,
) -> impl Future<Output = Result<(), TurnError>> + Send {
    delete_all(api(shared), blocks.map(|block| seen(pool, block)).collect())
}

async fn delete_all(api: Api<AddressBlock>, blocks: Vec<Seen>) -> Result<(), TurnError> {
    let deletions: Vec<_> = blocks.into_iter().map(|block| delete_one(api.clone(), block)).collect();
    let outcomes: Vec<_> = futures::stream::iter(deletions).buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().try_for_each(|outcome| harmless("a block's deletion", outcome))
}

async fn delete_one(api: Api<AddressBlock>, block: Seen) -> Outcome<()> {
    let preconditions = Preconditions { uid: Some(block.uid), resource_version: Some(block.version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    write(WRITE, async { api.delete(&block.name, &params).await.map(|_| ()) }).await
}

/// Deletes free blocks that nobody should claim: of an earlier pool of the same name, or wholly reserved by now.
pub(super) async fn remove_useless(shared: &Shared, shape: &PoolShape, view: &PoolView) -> Result<(), TurnError> {
    let Some(pool) = view.pool.as_ref().and_then(|pool| pool.metadata.name.clone()) else { return Ok(()) };
    let useless = finish::deletable(view).filter(|block| !status::belongs(shape, block));
    delete(shared, useless, &pool).await
}

/// A refusal because the block has changed or is gone is as good: the watch shows what it is now.
fn harmless<T>(what: &'static str, outcome: Outcome<T>) -> Result<(), TurnError> {
    match outcome {
        Outcome::Done(_) | Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => Ok(()),
        Outcome::Refused(why) => Err(TurnError::Refused { what, why }),
        Outcome::Unknown(why) => Err(TurnError::Unknown { what, why }),
    }
}
