//! The interface that adds the routes of claimed blocks to the node's export table and removes them.

use bobbin_datapath::Network;
use bobbin_ipam::BlockRange;
use futures::FutureExt;
use futures::future::BoxFuture;

/// The kernel refused to add or remove a block's route.
#[derive(Debug, thiserror::Error)]
#[error("the route of block {block} could not be {what}: {why}; the agent retries")]
pub struct ExportError {
    /// The block's range.
    pub block: String,
    /// The failed operation on the route: "exported" or "withdrawn".
    pub what: &'static str,
    /// The number of the export table.
    pub table: u32,
    /// The kernel's error.
    pub why: String,
}

/// Adds and removes the routes of claimed blocks.
pub trait Exports: Send + Sync {
    /// Adds the block's route to the export table.
    fn export(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>>;
    /// Removes the block's route from the export table.
    fn withdraw(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>>;
}

impl Exports for Network {
    fn export(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        async move { Network::export(self, &range).await.map_err(|error| failed(self, range, "exported", &error)) }
            .boxed()
    }

    fn withdraw(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>> {
        async move { Network::withdraw(self, &range).await.map_err(|error| failed(self, range, "withdrawn", &error)) }
            .boxed()
    }
}

fn failed(network: &Network, range: BlockRange, what: &'static str, why: &impl ToString) -> ExportError {
    ExportError { block: range.to_string(), what, table: network.settings().export_table, why: why.to_string() }
}
