//! What claiming needs of the node's network: a block's routes. The kernel's network does it; a test of claims needs none.

use bobbin_datapath::Network;
use bobbin_ipam::BlockRange;
use futures::FutureExt;
use futures::future::BoxFuture;

/// The kernel would not do it.
#[derive(Debug, thiserror::Error)]
#[error("the route of block {block} could not be {what}: {why}; the agent tries again")]
pub struct ExportError {
    /// The block's range.
    pub block: String,
    /// "exported" or "withdrawn".
    pub what: &'static str,
    /// The export table.
    pub table: u32,
    /// What the kernel said.
    pub why: String,
}

/// Puts up and takes away the routes of claimed blocks.
pub trait Exports: Send + Sync {
    /// The block is visible in the export table when this is done.
    fn export(&self, range: BlockRange) -> BoxFuture<'_, Result<(), ExportError>>;
    /// The block is not visible any more when this is done.
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
