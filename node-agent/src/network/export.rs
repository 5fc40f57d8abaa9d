//! Exports this node's blocks: writes the routes of the blocks that the node's state lists as exported. Only one change or comparison of
//! routes runs at a time.

use std::sync::Arc;

use bobbin_datapath::Network;
use bobbin_ipam::BlockRange;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::blocks::claim::{ExportError, Exports};
use crate::state::NodeState;

/// Manages the kernel routes of this node's exported blocks. Cheap to clone.
#[derive(Clone)]
pub struct ExportedBlocks(Arc<ExportState>);

struct ExportState {
    network: Network,
    node_state: Arc<NodeState>,
    /// The agent holds this lock during each comparison or change of block routes, so that a comparison never undoes a change. The value is
    /// false after an uninstall: the agent then repairs no routes.
    lock: tokio::sync::Mutex<bool>,
}

impl ExportedBlocks {
    /// Creates an `ExportedBlocks` for this node's blocks.
    pub fn new(network: Network, node_state: Arc<NodeState>) -> ExportedBlocks {
        ExportedBlocks(Arc::new(ExportState { network, node_state, lock: tokio::sync::Mutex::new(true) }))
    }

    /// Locks the block routes, and returns the blocks whose routes should exist. Returns `None` after an uninstall.
    pub async fn hold(&self) -> Option<(tokio::sync::MutexGuard<'_, bool>, Vec<BlockRange>)> {
        let lock = self.0.lock.lock().await;
        let ranges = self.0.node_state.exported();
        lock.then_some(()).map(|()| (lock, ranges))
    }

    /// Ends all repairs of block routes, so that removed routes stay removed.
    pub async fn close(&self) {
        *self.0.lock.lock().await = false;
    }
}

impl Exports for ExportedBlocks {
    /// Writes the route only if the node's state still lists the block as exported. A block that the node lost meanwhile gets no route.
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
