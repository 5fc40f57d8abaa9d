//! Writes to the blocks of one pool: creates, deletes, and takes the finalizer off those that are free. Never changes who has
//! one that is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, patch, write};
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use super::write::{WRITE, live};
use super::{TurnError, residents};
use crate::facts::{BlockFact, PoolView};
use crate::finish;
use crate::fresh;
use crate::layout::{PoolShape, accepted_entries};
use crate::run::Shared;
use crate::status;

/// How many writes are under way at once.
const AT_ONCE: usize = 16;

fn api(shared: &Shared) -> Api<Lenient<AddressBlock>> {
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
    let blocks = indices.iter().filter_map(|index| Some((*index, block(pool, shape, *index)?))).collect();
    create_all(shared, blocks).await
}

/// Creates blocks that are gone while records of one living node name them, claimed for that node.
///
/// What the watches show only says where to look: records and Node are read here.
pub(super) async fn create_again(
    shared: &Shared,
    pool: &str,
    shape: &PoolShape,
    again: &BTreeMap<u64, Arc<str>>,
) -> Result<Vec<BlockFact>, TurnError> {
    let mut blocks = Vec::new();
    for (index, node) in again {
        let Some(block) = block(pool, shape, *index) else { continue };
        if let Some(block) = residents::claimed(shared, block, node).await? {
            blocks.push((*index, block));
        }
    }
    create_all(shared, blocks).await
}

async fn create_all(shared: &Shared, blocks: Vec<(u64, AddressBlock)>) -> Result<Vec<BlockFact>, TurnError> {
    let creations: Vec<_> = blocks
        .into_iter()
        .map(|(index, block)| async move {
            let api = api(shared);
            let outcome = write(WRITE, bobbin_api_client::create(&api, &block)).await;
            (index, block.spec.node_name.clone(), outcome)
        })
        .collect();
    let outcomes: Vec<_> = futures::stream::iter(creations).buffer_unordered(AT_ONCE).collect().await;
    let (mut created, mut failed) = (Vec::new(), None);
    for (index, node, outcome) in outcomes {
        match outcome {
            Outcome::Done(Lenient::Readable(block)) => {
                created.push(BlockFact::of(&block, index, node.map(Into::into)));
            }
            Outcome::Done(Lenient::Unreadable(_)) => created.push(BlockFact::unreadable(index)),
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

/// One free block as it was seen: what a write to it is tied to.
struct Seen {
    name: String,
    uid: String,
    version: String,
}

fn seen(pool: &str, block: &BlockFact) -> Seen {
    Seen { name: format!("{pool}-{}", block.index), uid: block.uid.to_string(), version: block.version.to_string() }
}

/// Takes our finalizer off free blocks that no record lies in, and writes down since when their addresses rest.
pub(super) async fn release(shared: &Shared, view: &PoolView, pool: &str) -> Result<(), TurnError> {
    let releases: Vec<_> = finish::releasable(view).map(|block| release_one(shared, pool, block.clone())).collect();
    let outcomes: Vec<_> = futures::stream::iter(releases).buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().try_for_each(|outcome| harmless("a block's finalizer", outcome?))
}

async fn release_one(shared: &Shared, pool: &str, block: BlockFact) -> Result<Outcome<()>, ReadError> {
    let Seen { name, uid, version } = seen(pool, &block);
    let Some(place) = block.finalizer else { return Ok(Outcome::Done(())) };
    // The watch may lag: a record that it has not shown keeps the finalizer as well.
    if !fresh::is_unrecorded(&shared.clients, &name).await? {
        return Ok(Outcome::Done(()));
    }
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}),
        json!({"op": "remove", "path": format!("/metadata/finalizers/{place}")}),
    ];
    if !block.went_back_unused() {
        operations.push(json!({"op": "add", "path": "/spec/freeSince", "value": MicroTime(Timestamp::now())}));
    }
    Ok(done(write(WRITE, patch(&api(shared), &name, operations.into())).await))
}

/// Without what the API server answered: the watch shows it.
fn done<T>(outcome: Outcome<T>) -> Outcome<()> {
    match outcome {
        Outcome::Done(_) => Outcome::Done(()),
        Outcome::Refused(why) => Outcome::Refused(why),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    }
}

/// Deletes these blocks, if they are as they were seen: free.
pub(super) fn delete<'a>(
    shared: &Shared,
    blocks: impl Iterator<Item = &'a BlockFact>,
    pool: &str,
) -> impl Future<Output = Result<(), TurnError>> + Send {
    delete_all(api(shared), blocks.map(|block| seen(pool, block)).collect())
}

async fn delete_all(api: Api<Lenient<AddressBlock>>, blocks: Vec<Seen>) -> Result<(), TurnError> {
    let deletions: Vec<_> = blocks.into_iter().map(|block| delete_one(api.clone(), block)).collect();
    let outcomes: Vec<_> = futures::stream::iter(deletions).buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().try_for_each(|outcome| harmless("a block's deletion", outcome))
}

async fn delete_one(api: Api<Lenient<AddressBlock>>, block: Seen) -> Outcome<()> {
    let preconditions = Preconditions { uid: Some(block.uid), resource_version: Some(block.version) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    write(WRITE, bobbin_api_client::delete(&api, &block.name, &params)).await
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
