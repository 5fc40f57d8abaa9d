//! The routes of this node's blocks: what the ledger says is exported is what the kernel is told. One change or comparison at a time.

use std::sync::Arc;

use bobbin_datapath::Network;
use bobbin_ipam::BlockRange;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::blocks::claim::{ExportError, Exports};
use crate::state::NodeState;

/// Routes by the kernel's network. Cheap to clone.
#[derive(Clone)]
pub struct ExportedBlocks(Arc<ExportState>);

struct ExportState {
    network: Network,
    node_state: Arc<NodeState>,
    /// Held while routes of blocks are compared or changed, so that a comparison never undoes a change. False once the node is left:
    /// then nothing is put right any more.
    lock: tokio::sync::Mutex<bool>,
}

impl ExportedBlocks {
    /// For the blocks of a ledger.
    pub fn new(network: Network, node_state: Arc<NodeState>) -> ExportedBlocks {
        ExportedBlocks(Arc::new(ExportState { network, node_state, lock: tokio::sync::Mutex::new(true) }))
    }

    /// Keeps others from changing the blocks' routes, and tells which should be there; `None`: the node is left.
    pub async fn hold(&self) -> Option<(tokio::sync::MutexGuard<'_, bool>, Vec<BlockRange>)> {
        let lock = self.0.lock.lock().await;
        let ranges = self.0.node_state.exported();
        lock.then_some(()).map(|()| (lock, ranges))
    }

    /// From now on nothing is put right: what is taken down stays down.
    pub async fn close(&self) {
        *self.0.lock.lock().await = false;
    }
}

impl Exports for ExportedBlocks {
    /// Only what the ledger says is exported at this moment: a block that was lost meanwhile is not.
    fn export(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        async move {
            let _lock = self.0.lock.lock().await;
            if self.0.node_state.exported().contains(&range) {
                Exports::export(&self.0.network, range).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn withdraw(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        async move {
            let _lock = self.0.lock.lock().await;
            if !self.0.node_state.exported().contains(&range) {
                Exports::withdraw(&self.0.network, range).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
