//! Leaving (`--mode=remove`): takes from the node what the agent put there, once no pod needs it any more, and says what it waits for.
//! Called by run in place of the stock; while it waits, DEL is served as ever and ADD is refused. When all is gone it returns; the process stays, since a
//! DaemonSet would start it again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_kernel::Network;

use crate::args::Args;
use crate::claim::Claims;
use crate::event::Events;
use crate::exported::Exported;
use crate::install::{InstallError, remove_conflist, remove_shim};
use crate::ledger::{Attachment, Ledger};
use crate::record::Recorder;
use crate::run_dir::RunDir;

/// How often it is said again what is waited for.
const REMIND: Duration = Duration::from_mins(1);
/// How long queued deletions of records may take before leaving goes on without them.
const RECORDS: Duration = Duration::from_secs(30);
/// How long a block may take to go back before leaving goes on; the operator takes it back then.
const BLOCK: Duration = Duration::from_secs(30);
/// Names in a sentence; more are counted.
const NAMED: usize = 5;

/// What leaving takes away.
pub struct Leave {
    /// The settings.
    pub args: Args,
    /// The ledger: who still needs us.
    pub ledger: Arc<Ledger>,
    /// The records that go before the blocks.
    pub recorder: Recorder,
    /// The blocks' way back.
    pub claims: Claims,
    /// The node's network.
    pub network: Network,
    /// Repair ends before the network is taken down.
    pub exported: Exported,
    /// Events on the node.
    pub events: Events,
    /// The run directory.
    pub run_dir: Arc<RunDir>,
}

impl Leave {
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
        self.wait_for_records().await;
        self.give_blocks_back().await;
        self.exported.close().await;
        match self.network.tear_down().await {
            Ok(gone) => tracing::info!(gone = gone.join(", "), "removed rule, routes and filter"),
            Err(error) => {
                let sentence = format!(
                    "the network of node {} could not be cleaned: {error}; remove our rule, tables and nftables table by hand, or reboot",
                    self.args.node_name
                );
                tracing::error!("{sentence}");
                self.events.node_warning("NotClean", &sentence);
            }
        }
        remove_shim(&self.args)?;
        if let Err(error) = self.run_dir.forget() {
            tracing::warn!("{error}");
        }
        forget_state(&self.args.run_dir);
        let sentence = format!(
            "node {} is clean of Bobbin; uninstall it, or set agent.mode to run to use it again",
            self.args.node_name
        );
        tracing::info!("{sentence}");
        self.events.node_note("Removed", &sentence);
        Ok(())
    }

    async fn wait_for_pods(&self) {
        let mut changed = self.ledger.changed();
        loop {
            changed.mark_unchanged();
            let left = self.ledger.attachments();
            if left.is_empty() {
                return;
            }
            let sentence = waits_for(&left, &self.args.node_name);
            if self.args.force {
                tracing::warn!("forced: {sentence}");
                return;
            }
            tracing::info!("{sentence}");
            self.events.node_note("Waiting", &sentence);
            let until = tokio::time::Instant::now() + REMIND;
            // One line a minute, however many pods go in it.
            while self.ledger.attachment_count() > 0 {
                match tokio::time::timeout_at(until, changed.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    async fn wait_for_records(&self) {
        let until = tokio::time::Instant::now() + RECORDS;
        while self.recorder.pending() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.recorder.pending() > 0 {
            tracing::warn!(
                pending = self.recorder.pending(),
                "records could not be deleted in time; the operator deletes them once the node is gone"
            );
        }
    }

    async fn give_blocks_back(&self) {
        for block in self.ledger.blocks() {
            match tokio::time::timeout(BLOCK, self.claims.give_back(&block.name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(block = block.name, %error, "a block stays this node's; the operator takes it back once the node is gone");
                }
                Err(_) => tracing::warn!(
                    block = block.name,
                    "a block could not be given back in time; the operator takes it back once the node is gone"
                ),
            }
        }
    }
}

/// What is waited for, in one sentence.
fn waits_for(left: &[Attachment], node: &str) -> String {
    let mut names: Vec<String> = left
        .iter()
        .map(|attachment| match attachment.pod.name.as_str() {
            "" => format!("container {}", attachment.key),
            name => format!("{}/{name}", attachment.pod.namespace),
        })
        .collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!(
        "leaving node {node} waits for {} attachments to end: {}{rest}; delete or move these pods, or set agent.force=true to cut them off",
        left.len(),
        names.join(", ")
    )
}

/// The kept state; the socket and the directory stay while the process runs.
fn forget_state(run_dir: &Path) {
    for directory in ["attachments", "deletions", "resting"] {
        gone(std::fs::remove_dir_all(run_dir.join(directory)), directory);
    }
    for file in ["blocks.json", "cluster.json", "boot"] {
        gone(std::fs::remove_file(run_dir.join(file)), file);
    }
}

fn gone(result: std::io::Result<()>, what: &str) {
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
        std::fs::create_dir(directory.path().join("deletions")).unwrap();
        std::fs::write(directory.path().join("boot"), "x").unwrap();
        forget_state(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
