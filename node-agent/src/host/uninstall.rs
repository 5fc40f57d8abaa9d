//! Uninstalls Bobbin from a node (`--mode=remove`). Waits until no pod needs Bobbin, and reports the pods and blocks for which the
//! uninstall is waiting. Then removes the files and network objects that the agent installed.
//!
//! During the uninstall, the agent answers DEL and refuses ADD, and the demand controller releases the blocks. The process does not exit
//! after the uninstall, because kubelet would start it again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_datapath::KernelError;
use bobbin_messages::event::agent as event;

use crate::agent::Agent;
use crate::args::Args;
use crate::host::install::{InstallError, remove_conflist, remove_shim};
use crate::network::export::ExportedBlocks;
use crate::state::layout;
use crate::state::{Attachment, BlockView, first_names};

/// How often the agent reports the pods or blocks for which the uninstall is waiting.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);
/// The time limit of each wait of an uninstall with `--force`. The uninstall waits for the first read of the blocks, then for each
/// attachment's lock. Finally, it waits for the release of all blocks and the deletion of all assignments.
pub const FORCED_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest number of blocks that a message names.
const MAX_NAMED_BLOCKS: usize = 5;

/// The parts of the agent that the uninstall needs.
pub struct Uninstall {
    /// The agent, which still answers DEL during the uninstall.
    pub agent: Arc<Agent>,
    /// The exported blocks. The uninstall stops the repair of block routes before it removes the routes, so that no repair restores a
    /// removed route.
    pub exported: ExportedBlocks,
}

impl Uninstall {
    /// Uninstalls Bobbin from the node. Afterwards only the run directory is left on the node, with the sockets and the lock file. Reports
    /// routes and blocks that it could not remove or release, but returns no error for them.
    ///
    /// # Errors
    /// If the agent could not remove the configuration or the plugin. If the configuration remains, the agent removes nothing else, because
    /// the runtime still calls Bobbin for new pods.
    pub async fn run(&self) -> Result<(), InstallError> {
        // Wait before the configuration is removed, because without it containerd calls no DEL for the pods.
        self.wait_for_pods().await;
        if remove_conflist(&self.agent.args)? {
            tracing::info!(
                "the agent removed the CNI configuration. From now on, new pods on this node need another CNI plugin"
            );
        }
        self.cut_off_pods().await;
        let left = self.wait_for_blocks().await;
        self.exported.close().await;
        match self.agent.network.tear_down().await {
            Ok(gone) => tracing::info!(
                gone = gone.join(", "),
                "the agent removed its rules, routes and nftables table from the node"
            ),
            Err(error) => {
                let sentence = cleanup_failed(&self.agent.args, &error);
                tracing::error!("{sentence}");
                self.agent.events.on_node(&event::CLEANUP_FAILED, &sentence);
            }
        }
        remove_shim(&self.agent.args)?;
        if let Err(error) = self.agent.run_dir.forget() {
            tracing::warn!("{error}");
        }
        remove_state(&self.agent.args.run_dir);
        let node = &self.agent.args.node_name;
        if left > 0 {
            let sentence = not_clean(left, node);
            tracing::warn!("{sentence}");
            self.agent.events.on_node(&event::CLEANUP_FAILED, &sentence);
            return Ok(());
        }
        let sentence = format!(
            "Bobbin was removed from node {node}. When every Node has an event with the reason Removed, run: kubectl delete addresspools --all --wait, and then helm \
             uninstall. To use Bobbin again instead, undo what started the removal: set the chart value agent.mode=run, or remove the label bobbin.dev/agent=remove from the Node"
        );
        tracing::info!("{sentence}");
        self.agent.events.on_node(&event::REMOVED, &sentence);
        Ok(())
    }

    /// Ends each remaining attachment as a DEL does. Attachments remain only with `--force`. The agent has removed the CNI configuration,
    /// so the runtime calls no DEL for them. A pod without an interface can't use its address, so the agent may then release the blocks.
    async fn cut_off_pods(&self) {
        for attachment in self.agent.node_state.attachments() {
            let key = &attachment.key;
            let Some(_lock) = self.agent.locks.lock_for_del(key, FORCED_RELEASE_TIMEOUT).await else {
                tracing::warn!(%key, "another CNI call for the attachment is still running, so the agent does not end the attachment and keeps its block");
                continue;
            };
            let Some(attachment) = self.agent.node_state.attachment(key) else { continue };
            match self.agent.end(&attachment).await {
                Ok(true) => tracing::warn!(pair = %attachment.pair, "the agent cut off {}", attachment.who()),
                // `end` has logged the reason.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the agent could not cut off a pod, so the pod's block stays"),
            }
        }
    }

    async fn wait_for_pods(&self) {
        let mut changed = self.agent.node_state.changed();
        loop {
            changed.mark_unchanged();
            let left = self.agent.node_state.attachments();
            if left.is_empty() {
                return;
            }
            if self.agent.args.force {
                tracing::warn!("{}", cuts_off(&left, &self.agent.args.node_name));
                return;
            }
            let sentence = waits_for(&left, &self.agent.args.node_name);
            tracing::info!("{sentence}");
            self.agent.events.on_node(&event::WAITING_FOR_PODS, &sentence);
            let until = tokio::time::Instant::now() + REMINDER_INTERVAL;
            // Report at most once a minute, even if many pods end in that minute.
            while self.agent.node_state.attachment_count() > 0 {
                match tokio::time::timeout_at(until, changed.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    /// Waits until every block is released and every assignment is deleted. With `--force`, waits at most [`FORCED_RELEASE_TIMEOUT`].
    /// Returns the number of blocks that remain.
    async fn wait_for_blocks(&self) -> usize {
        let begun = tokio::time::Instant::now();
        let mut changed = self.agent.node_state.changed();
        let mut reported_at = begun;
        loop {
            changed.mark_unchanged();
            let blocks: Vec<BlockView> =
                self.agent.node_state.blocks().into_iter().filter(|block| block.state.counts_as_ours()).collect();
            let assignments = self.agent.assignment_writer.pending();
            if blocks.is_empty() && assignments == 0 {
                return 0;
            }
            if self.agent.args.force && begun.elapsed() >= FORCED_RELEASE_TIMEOUT {
                return blocks.len();
            }
            if reported_at.elapsed() >= REMINDER_INTERVAL {
                reported_at = tokio::time::Instant::now();
                let sentence = waits_for_blocks(&blocks, assignments, &self.agent.args.node_name);
                tracing::info!("{sentence}");
                self.agent.events.on_node(&event::WAITING_FOR_BLOCKS, &sentence);
            }
            // The deletion of an assignment does not change the node's state, so check twice a second.
            let _ = tokio::time::timeout(Duration::from_millis(500), changed.changed()).await;
        }
    }
}

/// Returns the message about blocks that are left after an uninstall with `--force`.
fn not_clean(left: usize, node: &str) -> String {
    format!(
        "cleanup incomplete: Bobbin was removed from node {node}, but the API server did not confirm the release of {left} blocks. The agent tries again until it is stopped. When the Node is deleted, the operator releases the blocks. To list the blocks, run: kubectl get addressblocks --field-selector spec.nodeName={node}"
    )
}

/// Returns the message for a failed removal of the node's routes. The error comes last, because it may be long, and the agent truncates
/// long events.
fn cleanup_failed(args: &Args, error: &KernelError) -> String {
    let Args { node_name, rule_priority, pod_table, export_table, nft_table, protocol, direct_protocol, .. } = args;
    format!(
        "the agent could not remove Bobbin's routes from node {node_name}. Reboot the node, or run these commands on the node, each `ip` command with -4 and with -6: `ip rule del priority {rule_priority} protocol {protocol}`, `ip route flush table {pod_table} proto {protocol}`, `ip route flush table {export_table} proto {protocol}`, `ip route flush table main proto {direct_protocol}`; then `nft delete table inet {nft_table}`. The error: {error}"
    )
}

/// Returns the message for an uninstall that is waiting for blocks and assignments.
fn waits_for_blocks(blocks: &[BlockView], assignments: usize, node: &str) -> String {
    let named: Vec<String> = blocks
        .iter()
        .take(MAX_NAMED_BLOCKS)
        .map(|block| format!("{} ({})", block.held.name, block.state.name()))
        .collect();
    format!(
        "the uninstall from node {node} waits until {assignments} IPAssignments are deleted and {} blocks are released: {}. Check that the API server answers, and look at the node's events. To uninstall without waiting, set agent.force=true. The blocks then stay claimed. The operator releases them after the Node is deleted",
        blocks.len(),
        named.join(", ")
    )
}

/// Returns the message for an uninstall that is waiting for attachments.
fn waits_for(left: &[Attachment], node: &str) -> String {
    format!(
        "the uninstall from node {node} waits until {} pod interfaces (attachments) have ended: {}. Delete or move these pods, or set agent.force=true to cut them off",
        left.len(),
        first_names(left)
    )
}

/// Returns the message for an uninstall that does not wait for pods and removes their interfaces.
fn cuts_off(left: &[Attachment], node: &str) -> String {
    format!(
        "agent.force is set, so the uninstall from node {node} removes {} pod interfaces (attachments) and cuts off their pods: {}",
        left.len(),
        first_names(left)
    )
}

/// Removes the checkpoint. The sockets and the directory stay while the process runs.
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
        tracing::warn!(what, %error, "the agent could not remove a file or directory of the checkpoint. Remove it from the run directory on the node");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_no_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(layout::PENDING_DELETIONS)).unwrap();
        std::fs::write(directory.path().join(layout::BOOT), "x").unwrap();
        remove_state(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
