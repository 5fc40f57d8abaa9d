//! Brings a claimed block into service: writes its route, waits for the end of the quiet time after an outage, and saves the block.

use bobbin_datapath::boot_time;
use bobbin_ipam::BootTime;
use bobbin_messages::event::agent as event;

use super::{ReconcilerState, Requeue};
use crate::cluster::pool_selection::has_subnet_of;
use crate::state::BlockEvent;

impl ReconcilerState {
    /// Makes one step for a block in the state `exporting`.
    pub(super) async fn enter_service(&self, name: &str, since: BootTime, not_before: BootTime) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        // The block may lie outside of the pool's subnets. For example, a user recreated the pool with other subnets, and then a late write
        // of the operator's former leader created this block. Another pool may now contain the block's addresses. If pods use the block,
        // the agent still exports the block, but assigns no more addresses from the block.
        let pool = self.context.cluster.pool(&block.held.pool);
        let is_outside = pool.is_some_and(|pool| !has_subnet_of(&pool, &block.held.range));
        if is_outside && self.context.node_state.begin_release(name) {
            tracing::warn!(block = name, range = %block.held.range, "the node releases a claimed block, because no subnet in the agent's copy of the pool contains the block");
            return Requeue::Now;
        }
        if let Err(error) = self.context.exports.export(block.held.range).await {
            if boot_time().since(since) < self.context.times.export_deadline() {
                tracing::warn!(block = name, %error, "a claimed block does not enter service yet, because the agent could not write the block's route");
                return Requeue::WithBackoff;
            }
            // If pods use the block's addresses, the node keeps the block, even if the block's route can't be written.
            if !self.context.node_state.begin_release(name) {
                return Requeue::WithBackoff;
            }
            tracing::error!(block = name, %error, "the agent releases a claimed block, because it could not write the block's route");
            self.context.events.on_node(
                &event::EXPORT_FAILED,
                &format!(
                    "node {} releases block {name}, because every attempt to write the block's route has failed for {} s: {}. See the agent's log. Another program may have a route with the same destination. To find it, run on the node: ip route show table {}; ip -6 route show table {3}",
                    self.context.cluster.node_name(),
                    self.context.times.export_deadline().as_secs(),
                    error.why,
                    error.table
                ),
            );
            return Requeue::Now;
        }
        let quiet = not_before.since(boot_time());
        if !quiet.is_zero() {
            return Requeue::After(quiet);
        }
        if is_outside {
            return Requeue::WithBackoff;
        }
        match self.context.checkpoint.promote(name, BlockEvent::Exported).await {
            Ok(_) => Requeue::Now,
            Err(error) => {
                tracing::debug!(block = name, %error, "a claimed block does not enter service yet, because the agent could not save the block in the checkpoint");
                Requeue::WithBackoff
            }
        }
    }
}
