//! Leaving (`--mode=remove`): takes from the node what the agent put there, once no pod needs it any more, and says what it waits for.
//! While it waits, DEL is served as ever and ADD is refused; the stock retires and releases the blocks. When all is gone it returns; the
//! process stays, since a DaemonSet would start it again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_datapath::{KernelError, Network};

use crate::args::Args;
use crate::assignments::AssignmentWriter;
use crate::events::Events;
use crate::host::install::{InstallError, remove_conflist, remove_shim};
use crate::host::run_dir::{RunDir, layout};
use crate::network::export::ExportedBlocks;
use crate::state::{Attachment, BlockView, NodeState, first_names};

/// How often it is said again what is waited for.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);
/// With `force`: how long blocks and records may take before leaving goes on without them.
const FORCED_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// Names in a sentence; more are counted.
const MAX_NAMED_BLOCKS: usize = 5;

/// What leaving takes away.
pub struct Uninstall {
    /// The settings.
    pub args: Args,
    /// The ledger: who still needs us.
    pub node_state: Arc<NodeState>,
    /// The records that go before the blocks.
    pub assignment_writer: AssignmentWriter,
    /// The node's network.
    pub network: Network,
    /// Repair ends before the network is taken down.
    pub exported: ExportedBlocks,
    /// Events on the node.
    pub events: Events,
    /// The run directory.
    pub run_dir: Arc<RunDir>,
}

impl Uninstall {
    /// Leaves. Returns when nothing of ours is left on the node but the run directory's socket.
    ///
    /// # Errors
    /// The configuration could not be removed: then nothing else is, since new pods would still be sent to us.
    pub async fn run(&self) -> Result<(), InstallError> {
        // The configuration last of what pods need: without it containerd calls no DEL either.
        self.wait_for_pods().await;
        if remove_conflist(&self.args)? {
            tracing::info!("removed the CNI configuration; new pods need another plugin from now on");
        }
        let left = self.wait_for_blocks().await;
        self.exported.close().await;
        match self.network.tear_down().await {
            Ok(gone) => tracing::info!(gone = gone.join(", "), "removed rule, routes and filter"),
            Err(error) => {
                let sentence = cleanup_failed(&self.args, &error);
                tracing::error!("{sentence}");
                self.events.node_warning("CleanupFailed", &sentence);
            }
        }
        remove_shim(&self.args)?;
        if let Err(error) = self.run_dir.forget() {
            tracing::warn!("{error}");
        }
        remove_state(&self.args.run_dir);
        let node = &self.args.node_name;
        if left > 0 {
            let sentence = format!(
                "node {node} is not clean: {left} blocks are left to the operator, which frees them once the Node is deleted; see: kubectl get addressblocks --field-selector spec.nodeName={node}"
            );
            tracing::warn!("{sentence}");
            self.events.node_warning("CleanupFailed", &sentence);
            return Ok(());
        }
        let sentence = format!(
            "Bobbin is removed from node {node}; helm uninstall may follow once every node says so, or set agent.mode=run to use it again"
        );
        tracing::info!("{sentence}");
        self.events.node_note("Removed", &sentence);
        Ok(())
    }

    async fn wait_for_pods(&self) {
        let mut changed = self.node_state.changed();
        loop {
            changed.mark_unchanged();
            let left = self.node_state.attachments();
            if left.is_empty() {
                return;
            }
            let sentence = waits_for(&left, &self.args.node_name);
            if self.args.force {
                tracing::warn!("forced: {sentence}");
                return;
            }
            tracing::info!("{sentence}");
            self.events.node_note("WaitingForPods", &sentence);
            let until = tokio::time::Instant::now() + REMINDER_INTERVAL;
            // One line a minute, however many pods go in it.
            while self.node_state.attachment_count() > 0 {
                match tokio::time::timeout_at(until, changed.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    /// Waits until every block has gone back and every record is deleted. Returns how many blocks are left, which only `force` allows.
    async fn wait_for_blocks(&self) -> usize {
        let begun = tokio::time::Instant::now();
        let mut changed = self.node_state.changed();
        let mut told = begun;
        loop {
            changed.mark_unchanged();
            let blocks: Vec<BlockView> =
                self.node_state.blocks().into_iter().filter(|block| block.state.counts_as_ours()).collect();
            let records = self.assignment_writer.pending();
            if blocks.is_empty() && records == 0 {
                return 0;
            }
            if self.args.force && begun.elapsed() >= FORCED_RELEASE_TIMEOUT {
                return blocks.len();
            }
            if told.elapsed() >= REMINDER_INTERVAL {
                told = tokio::time::Instant::now();
                let sentence = waits_for_blocks(&blocks, records, &self.args.node_name);
                tracing::info!("{sentence}");
                self.events.node_note("WaitingForBlocks", &sentence);
            }
            // Deleted records change nothing in the ledger, so they are looked for at least this often.
            let _ = tokio::time::timeout(Duration::from_millis(500), changed.changed()).await;
        }
    }
}

/// What to do by hand where the network could not be cleaned. The error comes last, for it may be long and an event is cut.
fn cleanup_failed(args: &Args, error: &KernelError) -> String {
    let Args { node_name, rule_priority, pod_table, export_table, nft_table, protocol, direct_protocol, .. } = args;
    format!(
        "the network of node {node_name} could not be cleaned; reboot it, or run there, as ip -4 and as ip -6: ip rule del priority {rule_priority} protocol {protocol}; ip route flush table {pod_table} proto {protocol}; ip route flush table {export_table} proto {protocol}; ip route flush table main proto {direct_protocol}; and once: nft delete table inet {nft_table}. What failed: {error}"
    )
}

/// What is waited for once no pod is left, in one sentence.
fn waits_for_blocks(blocks: &[BlockView], records: usize, node: &str) -> String {
    let named: Vec<String> = blocks
        .iter()
        .take(MAX_NAMED_BLOCKS)
        .map(|block| format!("{} ({})", block.held.name, block.state.name()))
        .collect();
    format!(
        "leaving node {node} waits for {} blocks to go back and {records} records to be deleted: {}; see that the API server answers and what the events of the node say, or set agent.force=true to leave them to the operator",
        blocks.len(),
        named.join(", ")
    )
}

/// What is waited for, in one sentence.
fn waits_for(left: &[Attachment], node: &str) -> String {
    format!(
        "leaving node {node} waits for {} attachments to end: {}; delete or move these pods, or set agent.force=true to cut them off",
        left.len(),
        first_names(left)
    )
}

/// The kept state; the socket and the directory stay while the process runs.
fn remove_state(run_dir: &Path) {
    for directory in layout::CHECKPOINT_DIRECTORIES {
        warn_unless_gone(std::fs::remove_dir_all(run_dir.join(directory)), directory);
    }
    for file in layout::CHECKPOINT_FILES {
        warn_unless_gone(std::fs::remove_file(run_dir.join(file)), file);
    }
}

fn warn_unless_gone(result: std::io::Result<()>, what: &str) {
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(what, %error, "kept state could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_already_needs_no_removal() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(layout::PENDING_DELETIONS)).unwrap();
        std::fs::write(directory.path().join(layout::BOOT), "x").unwrap();
        remove_state(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
