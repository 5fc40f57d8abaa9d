//! Writes to the blocks of a pool: creates and deletes them, and completes releases. Never changes the owner of an existing block.

use std::time::Duration;

use bobbin_api_client::{Lenient, Outcome, Refusal, patch, write};
use bobbin_crds::pool::DEFAULT_COOLDOWN;
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use bobbin_ipam::pool_shape::{PoolShape, accepted_entries};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use super::failed_blocks::BlockWrites;
use super::live_pool;
use crate::cache::{BlockInfo, PoolView};
use crate::context::{Context, MAX_CONCURRENT_WRITES, WRITE_TIMEOUT};
use crate::live_reads;
use crate::pool::error::ReconcileError;
use crate::pool::{delete, status};

fn api(context: &Context) -> Api<Lenient<AddressBlock>> {
    Api::all(context.clients.requests.clone())
}

/// Reads the pool from the API server and returns whether the operator may create blocks of the pool. Fails if the pool or
/// its accepted entries have changed.
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

/// Creates free blocks and returns them. Returns `None` for a block that existed already, because the watch shows that block.
pub(in crate::pool) async fn create(
    context: &Context,
    pool: &str,
    shape: &PoolShape,
    indices: &[u64],
) -> BlockWrites<Option<BlockInfo>> {
    let blocks = indices.iter().filter_map(|index| Some((*index, new_block(pool, shape, *index)?))).collect();
    create_all(context, blocks).await
}

/// Creates the given blocks, each with its index. Returns the created blocks in the same way as [`create`].
pub(in crate::pool) async fn create_all(
    context: &Context,
    blocks: Vec<(u64, AddressBlock)>,
) -> BlockWrites<Option<BlockInfo>> {
    const WHAT: &str = "a new block";
    let creations: Vec<_> = blocks
        .into_iter()
        .map(|(index, block)| async move {
            let api = api(context);
            let node = block.spec.node_name.clone().map(Into::into);
            let result = match write(WRITE_TIMEOUT, bobbin_api_client::create(&api, &block)).await {
                Outcome::Done(Lenient::Readable(block)) => Ok(Some(BlockInfo::new(&block, index, node))),
                Outcome::Done(Lenient::Unreadable(_)) => Ok(Some(BlockInfo::unreadable(index))),
                Outcome::Refused(Refusal::AlreadyExists) => Ok(None),
                Outcome::Refused(why) => Err(ReconcileError::Refused { what: WHAT, why }),
                // If the API server created the block, the watch shows it. If not, a later pass creates the block.
                Outcome::Unknown(why) => Err(ReconcileError::Unknown { what: WHAT, why }),
            };
            (index, result)
        })
        .collect();
    let writes = all(creations).await;
    let created = writes.done.iter().filter(|(_, block)| block.is_some()).count();
    context.metrics.blocks_carved.inc_by(created as u64);
    writes
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
pub(in crate::pool) struct BlockVersion {
    pub(in crate::pool) name: String,
    uid: String,
    version: String,
}

/// The names and versions of the given blocks.
pub(in crate::pool) fn versions<'a>(blocks: impl Iterator<Item = &'a BlockInfo>, pool: &str) -> Vec<BlockVersion> {
    blocks.map(|block| version_of(pool, block)).collect()
}

fn version_of(pool: &str, block: &BlockInfo) -> BlockVersion {
    BlockVersion {
        name: name::block(pool, block.index),
        uid: block.uid.to_string(),
        version: block.version.to_string(),
    }
}

/// Completes the release of the free blocks that no assignment names. Removes Bobbin's finalizer. If pods may have used a
/// block, sets the block's `freeSince`, which starts the cool-down. Skips blocks that `may_write` excludes.
pub(in crate::pool) async fn complete_releases(
    context: &Context,
    view: &PoolView,
    pool: &str,
    may_write: impl Fn(u64) -> bool,
) -> BlockWrites {
    let cooldown = view.pool.as_ref().map_or(DEFAULT_COOLDOWN, |pool| pool.spec.cooldown());
    let releases: Vec<_> = delete::unfinished_releases(view, cooldown, Timestamp::now())
        .filter(|block| may_write(block.index))
        .map(|block| async move { (block.index, complete_release(context, pool, block, cooldown).await) })
        .collect();
    all(releases).await
}

async fn complete_release(
    context: &Context,
    pool: &str,
    block: &BlockInfo,
    cooldown: Duration,
) -> Result<(), ReconcileError> {
    let BlockVersion { name, uid, version } = version_of(pool, block);
    // The cache may lag behind, so the operator asks the API server whether an assignment names the block.
    if !live_reads::has_no_assignments(&context.clients, &name).await? {
        return Ok(());
    }
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}),
    ];
    if let Some(position) = block.finalizer {
        operations.push(json!({"op": "remove", "path": format!("/metadata/finalizers/{position}")}));
    }
    let now = Timestamp::now();
    if !block.was_released_unused() || block.is_far_ahead(cooldown, now) {
        operations.push(json!({"op": "add", "path": "/spec/freeSince", "value": MicroTime(now)}));
    }
    let outcome = match write(WRITE_TIMEOUT, patch(&api(context), &name, operations.into())).await {
        Outcome::Done(_) => Outcome::Done(()),
        Outcome::Refused(why) => Outcome::Refused(why),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    };
    tolerate_stale("the release of a block", outcome)
}

/// Deletes the given free blocks. Keeps a block that has changed since the watch showed it.
pub(in crate::pool) async fn delete(
    context: &Context,
    blocks: impl Iterator<Item = &BlockInfo>,
    pool: &str,
) -> BlockWrites {
    let deletions: Vec<_> = blocks
        .map(|block| (block.index, version_of(pool, block)))
        .map(|(index, block)| async move {
            (index, tolerate_stale("the deletion of a block", delete_one(context, block).await))
        })
        .collect();
    all(deletions).await
}

/// Deletes one block if it still has the given version.
pub(in crate::pool) async fn delete_one(context: &Context, block: BlockVersion) -> Outcome<()> {
    let preconditions = Preconditions { uid: Some(block.uid), resource_version: Some(block.version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    write(WRITE_TIMEOUT, bobbin_api_client::delete(&api(context), &block.name, &params)).await
}

/// The cooled free blocks that no node should claim: blocks of an earlier pool with the same name, and fully reserved
/// blocks.
pub(in crate::pool) fn unusable<'a>(
    shape: &PoolShape,
    view: &'a PoolView,
    cooldown: Duration,
) -> impl Iterator<Item = &'a BlockInfo> {
    delete::cooled(view, cooldown, Timestamp::now()).filter(|block| !status::belongs(shape, block))
}

async fn all<T>(writes: Vec<impl Future<Output = (u64, Result<T, ReconcileError>)>>) -> BlockWrites<T> {
    let results: Vec<_> = futures::stream::iter(writes).buffer_unordered(MAX_CONCURRENT_WRITES).collect().await;
    results.into_iter().collect()
}

/// Converts the outcome of a write to a block. A write that fails because the block has changed is no error. The watch
/// shows the change, and the next pass decides again.
fn tolerate_stale(what: &'static str, outcome: Outcome<()>) -> Result<(), ReconcileError> {
    match outcome {
        Outcome::Done(()) | Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => Ok(()),
        Outcome::Refused(why) => Err(ReconcileError::Refused { what, why }),
        Outcome::Unknown(why) => Err(ReconcileError::Unknown { what, why }),
    }
}
