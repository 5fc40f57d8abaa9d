//! Deletes surplus free blocks of all pools in one task, so that many deletions delay no reconcile pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::context::{Context, LOOP_DEADLINE};
use crate::pool::write::blocks::{BlockVersion, delete_one};

/// The maximum number of deletions in flight at the same time. It is small, so that deletions do not delay nodes that claim
/// blocks.
const MAX_CONCURRENT_DELETIONS: usize = 4;
/// How often the task reports progress to the watchdog while no pool has surplus blocks.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// For each pool, the surplus blocks that the operator has yet to delete.
#[derive(Default)]
pub(crate) struct SurplusQueue {
    pools: Mutex<BTreeMap<Arc<str>, Vec<BlockVersion>>>,
    added: Notify,
}

impl SurplusQueue {
    /// Replaces the pool's blocks in the queue.
    pub(super) fn replace(&self, pool: &Arc<str>, blocks: Vec<BlockVersion>) {
        self.pools.lock().insert(Arc::clone(pool), blocks);
        self.added.notify_one();
    }

    fn next(&self) -> Option<Vec<BlockVersion>> {
        self.pools.lock().pop_first().map(|(_, blocks)| blocks)
    }
}

/// Deletes the blocks in the queue. Never returns.
///
/// Each deletion carries the UID and resourceVersion that the unclaimed block had in the watch. If a node claims the block
/// first, the API server refuses the deletion. If a deletion fails, the pool's reconciler finds the surplus again.
pub(crate) async fn run(context: Arc<Context>) {
    let beat = context.watchdog.register("surplus blocks", LOOP_DEADLINE);
    loop {
        beat.beat();
        let Some(blocks) = context.surplus.next() else {
            let _ = tokio::time::timeout(IDLE_INTERVAL, context.surplus.added.notified()).await;
            continue;
        };
        let deletions = blocks.into_iter().map(|block| delete_if_leader(&context, block));
        let deletions = futures::stream::iter(deletions).buffer_unordered(MAX_CONCURRENT_DELETIONS);
        deletions.inspect(|()| beat.beat()).count().await;
    }
}

async fn delete_if_leader(context: &Context, block: BlockVersion) {
    use bobbin_api_client::{Outcome, Refusal};
    if !context.is_leader() {
        return;
    }
    let name = block.name.clone();
    match delete_one(context, block).await {
        Outcome::Done(()) => {
            context.metrics.surplus_blocks_deleted.inc();
        }
        Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => {}
        Outcome::Refused(why) => {
            tracing::debug!(block = name, %why, "the API server refused to delete a surplus block; the operator tries again later");
        }
        Outcome::Unknown(why) => {
            tracing::debug!(block = name, %why, "the operator does not know whether the API server deleted a surplus block; the operator checks later");
        }
    }
}
