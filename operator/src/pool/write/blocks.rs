//! Writes to the blocks of a pool: creates and deletes them, and removes finalizers. Never changes the owner of an existing block.

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, patch, write};
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use super::live_pool;
use crate::cache::{BlockInfo, PoolView};
use crate::context::{Context, MAX_CONCURRENT_WRITES, WRITE_TIMEOUT};
use crate::layout::{PoolShape, accepted_entries};
use crate::live_reads;
use crate::pool::error::ReconcileError;
use crate::pool::{delete, status};

fn api(context: &Context) -> Api<Lenient<AddressBlock>> {
    Api::all(context.clients.requests.clone())
}

/// Reads the pool live and returns whether the operator may create blocks of the pool. Fails if the pool or its accepted
/// entries have changed.
///
/// Without this read, an operator that was suspended for a while could carve addresses that now belong to another pool.
pub(in crate::pool) async fn may_carve(context: &Context, pool: &AddressPool) -> Result<bool, ReconcileError> {
    let live = live_pool(context, pool.metadata.name.as_deref().unwrap_or_default()).await?;
    let same = live.metadata.uid == pool.metadata.uid && live.metadata.deletion_timestamp.is_none();
    if !same || accepted_entries(live.status.as_ref()) != accepted_entries(pool.status.as_ref()) {
        return Err(ReconcileError::Stale);
    }
    Ok(!live.spec.draining)
}

/// Creates free blocks and returns them. Leaves out blocks that existed already, because the watch shows those blocks.
pub(in crate::pool) async fn create(
    context: &Context,
    pool: &str,
    shape: &PoolShape,
    indices: &[u64],
) -> Result<Vec<BlockInfo>, ReconcileError> {
    let blocks = indices.iter().filter_map(|index| Some((*index, new_block(pool, shape, *index)?))).collect();
    create_all(context, blocks).await
}

/// Creates blocks, each given with its index. Returns the created blocks.
pub(in crate::pool) async fn create_all(
    context: &Context,
    blocks: Vec<(u64, AddressBlock)>,
) -> Result<Vec<BlockInfo>, ReconcileError> {
    const WHAT: &str = "a new block";
    let creations: Vec<_> = blocks
        .into_iter()
        .map(|(index, block)| async move {
            let api = api(context);
            let outcome = write(WRITE_TIMEOUT, bobbin_api_client::create(&api, &block)).await;
            (index, block.spec.node_name.clone(), outcome)
        })
        .collect();
    let outcomes: Vec<_> = futures::stream::iter(creations).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    let (mut created, mut failed) = (Vec::new(), None);
    for (index, node, outcome) in outcomes {
        match outcome {
            Outcome::Done(Lenient::Readable(block)) => {
                created.push(BlockInfo::new(&block, index, node.map(Into::into)));
            }
            Outcome::Done(Lenient::Unreadable(_)) => created.push(BlockInfo::unreadable(index)),
            Outcome::Refused(Refusal::AlreadyExists) => {}
            Outcome::Refused(why) => failed = Some(ReconcileError::Refused { what: WHAT, why }),
            // If the block was created, the watch shows it. Otherwise the next pass creates it.
            Outcome::Unknown(why) => failed = failed.or(Some(ReconcileError::Unknown { what: WHAT, why })),
        }
    }
    context.metrics.blocks_carved.inc_by(created.len() as u64);
    match failed {
        Some(error) if created.is_empty() => Err(error),
        _ => Ok(created),
    }
}

/// A free block at this index of the pool; `None` if the pool has no such index.
pub(in crate::pool) fn new_block(pool: &str, shape: &PoolShape, index: u64) -> Option<AddressBlock> {
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

/// The name of a block, and the UID and resourceVersion that a conditional write tests.
struct BlockVersion {
    name: String,
    uid: String,
    version: String,
}

fn version_of(pool: &str, block: &BlockInfo) -> BlockVersion {
    let name = format!("{pool}-{}", block.index);
    BlockVersion { name, uid: block.uid.to_string(), version: block.version.to_string() }
}

/// Removes Bobbin's finalizer from the free blocks that no assignment names, and sets `freeSince`, from which the cool-down
/// counts.
pub(in crate::pool) async fn remove_finalizers(
    context: &Context,
    view: &PoolView,
    pool: &str,
) -> Result<(), ReconcileError> {
    let removals: Vec<_> =
        delete::finalizable(view).map(|block| remove_finalizer(context, pool, block.clone())).collect();
    let outcomes: Vec<_> = futures::stream::iter(removals).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    outcomes.into_iter().try_for_each(|outcome| tolerate_stale("the finalizers of a block", outcome?))
}

async fn remove_finalizer(context: &Context, pool: &str, block: BlockInfo) -> Result<Outcome<()>, ReadError> {
    let BlockVersion { name, uid, version } = version_of(pool, &block);
    let Some(position) = block.finalizer else { return Ok(Outcome::Done(())) };
    // The cache may lag behind, so a live read checks that no assignment names the block.
    if !live_reads::has_no_assignments(&context.clients, &name).await? {
        return Ok(Outcome::Done(()));
    }
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}),
        json!({"op": "remove", "path": format!("/metadata/finalizers/{position}")}),
    ];
    if !block.was_released_unused() {
        operations.push(json!({"op": "add", "path": "/spec/freeSince", "value": MicroTime(Timestamp::now())}));
    }
    Ok(match write(WRITE_TIMEOUT, patch(&api(context), &name, operations.into())).await {
        Outcome::Done(_) => Outcome::Done(()),
        Outcome::Refused(why) => Outcome::Refused(why),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    })
}

/// Deletes the given free blocks. A block that was changed since the watch showed it stays.
pub(in crate::pool) fn delete<'a>(
    context: &Context,
    blocks: impl Iterator<Item = &'a BlockInfo>,
    pool: &str,
) -> impl Future<Output = Result<(), ReconcileError>> + Send {
    delete_all(api(context), blocks.map(|block| version_of(pool, block)).collect())
}

async fn delete_all(api: Api<Lenient<AddressBlock>>, blocks: Vec<BlockVersion>) -> Result<(), ReconcileError> {
    let deletions: Vec<_> = blocks.into_iter().map(|block| delete_one(api.clone(), block)).collect();
    let outcomes: Vec<_> = futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    outcomes.into_iter().try_for_each(|outcome| tolerate_stale("the deletion of a block", outcome))
}

async fn delete_one(api: Api<Lenient<AddressBlock>>, block: BlockVersion) -> Outcome<()> {
    let preconditions = Preconditions { uid: Some(block.uid), resource_version: Some(block.version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    write(WRITE_TIMEOUT, bobbin_api_client::delete(&api, &block.name, &params)).await
}

/// Deletes free blocks that no node should claim: blocks of an earlier pool with the same name, and fully reserved blocks.
pub(in crate::pool) async fn delete_unusable(
    context: &Context,
    shape: &PoolShape,
    view: &PoolView,
) -> Result<(), ReconcileError> {
    let Some(pool) = view.pool.as_ref().and_then(|pool| pool.metadata.name.clone()) else { return Ok(()) };
    let unusable = delete::deletable(view).filter(|block| !status::belongs(shape, block));
    delete(context, unusable, &pool).await
}

/// Converts the outcome of a write to a block. A stale block is no error: the watch shows the change, and the next pass
/// decides.
fn tolerate_stale(what: &'static str, outcome: Outcome<()>) -> Result<(), ReconcileError> {
    match outcome {
        Outcome::Done(()) | Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => Ok(()),
        Outcome::Refused(why) => Err(ReconcileError::Refused { what, why }),
        Outcome::Unknown(why) => Err(ReconcileError::Unknown { what, why }),
    }
}
