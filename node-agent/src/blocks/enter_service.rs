//! A claimed block on its way into service: its route, then the quiet time after an outage, then the checkpoint.

use bobbin_datapath::boot_time;
use bobbin_ipam::BootTime;

use super::{Inner, Step};
use crate::state::BlockEvent;

impl Inner {
    /// One step of a block in `exporting`.
    pub(super) async fn serve(&self, name: &str, since: BootTime, not_before: BootTime) -> Step {
        let Some(block) = self.with.node_state.block(name) else { return Step::Again };
        if let Err(error) = self.with.exports.export(block.held.range).await {
            if boot_time().since(since) < self.with.times.export_deadline() {
                tracing::warn!(block = name, %error, "a claimed block is not in service yet");
                return Step::Failed;
            }
            // A block that pods have addresses of stays, whatever its route.
            if !self.with.node_state.begin_release(name) {
                return Step::Failed;
            }
            tracing::error!(block = name, %error, "a claimed block goes back: its route could not be written");
            self.with.events.node_warning(
                "ExportFailed",
                &format!(
                    "node {} gives block {name} back: its route could not be written for {} s: {}; see the agent's log and: ip route show table {}",
                    self.with.view.node_name(),
                    self.with.times.export_deadline().as_secs(),
                    error.why,
                    error.table
                ),
            );
            return Step::Again;
        }
        let quiet = not_before.since(boot_time());
        if !quiet.is_zero() {
            return Step::Wait(quiet);
        }
        match self.with.checkpoint.promote(name, BlockEvent::Exported).await {
            Ok(_) => Step::Again,
            Err(error) => {
                tracing::debug!(block = name, %error, "a claimed block is not in service yet");
                Step::Failed
            }
        }
    }
}
