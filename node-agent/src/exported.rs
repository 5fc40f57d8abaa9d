//! The order of claim and release on this node: what the kernel exports, what repair takes for right, and what a restart would assign from
//! never say more than the API server has confirmed. Called by claim, repair and run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bobbin_addressing::BlockRange;
use bobbin_kernel::Network;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::claim::{ExportFailed, Exports};
use crate::journal::{Journal, JournalError};
use crate::ledger::Ledger;

/// Routes by the kernel's network, the journal's list of blocks kept in step. Cheap to clone.
#[derive(Clone)]
pub struct Exported(Arc<Inner>);

struct Inner {
    network: Network,
    journal: Journal,
    ledger: Arc<Ledger>,
    /// The ranges whose routes are up, or are just being put up.
    ranges: Mutex<BTreeSet<BlockRange>>,
    /// Held while routes of blocks are compared or changed, so that repair never mends what a claim is about to do. False once
    /// the node is left: then nothing is put right any more.
    fence: tokio::sync::Mutex<bool>,
}

impl Exported {
    /// For the blocks that the ledger has at start.
    pub fn new(network: Network, journal: Journal, ledger: Arc<Ledger>) -> Exported {
        let ranges = ledger.blocks().into_iter().map(|block| block.range).collect();
        Exported(Arc::new(Inner {
            network,
            journal,
            ledger,
            ranges: Mutex::new(ranges),
            fence: tokio::sync::Mutex::new(true),
        }))
    }

    /// Keeps others from changing the blocks' routes, and tells which should be there; `None`: the node is left.
    pub async fn hold(&self) -> Option<(tokio::sync::MutexGuard<'_, bool>, Vec<BlockRange>)> {
        let fence = self.0.fence.lock().await;
        let ranges = self.ranges().iter().copied().collect();
        fence.then_some(()).map(|()| (fence, ranges))
    }

    /// From now on nothing is put right: what is taken down stays down.
    pub async fn close(&self) {
        *self.0.fence.lock().await = false;
    }

    /// Writes the list of blocks down whenever it changes.
    pub async fn keep_list(&self, stop: &CancellationToken) {
        let mut changed = self.0.ledger.changed();
        let mut written = None;
        loop {
            changed.mark_unchanged();
            let names: Vec<_> = self.0.ledger.blocks_to_keep().into_iter().map(|block| block.name).collect();
            if written.as_ref() != Some(&names) {
                match self.write_list(None) {
                    Ok(()) => written = Some(names),
                    Err(error) => tracing::error!(%error, "the list of blocks could not be written down"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks and writes under one lock, so that an older list never follows a newer one.
    fn write_list(&self, without: Option<BlockRange>) -> Result<(), JournalError> {
        let _ranges = self.ranges();
        let mut keep = self.0.ledger.blocks_to_keep();
        keep.retain(|block| Some(block.range) != without);
        self.0.journal.keep_blocks(&keep)
    }

    fn ranges(&self) -> MutexGuard<'_, BTreeSet<BlockRange>> {
        self.0.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exports for Exported {
    fn export(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportFailed>> {
        async move {
            let _fence = self.0.fence.lock().await;
            self.ranges().insert(range);
            let done = Exports::export(&self.0.network, range).await;
            if done.is_err() {
                self.ranges().remove(&range);
            }
            done
        }
        .boxed()
    }

    /// The block leaves the journal before its route goes, and its route before the API server is asked: a restart at any moment finds
    /// no block in the journal that may be another node's. The route goes even if the journal can't be written.
    fn withdraw(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportFailed>> {
        async move {
            let written = self.write_list(Some(range));
            let _fence = self.0.fence.lock().await;
            self.ranges().remove(&range);
            Exports::withdraw(&self.0.network, range).await?;
            written.map_err(|error| ExportFailed {
                block: range.to_string(),
                what: "withdrawn",
                why: error.to_string(),
            })
        }
        .boxed()
    }
}
