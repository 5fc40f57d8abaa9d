//! Reads a doubted block, which this node may have lost, from the API server to find out which node owns it.
//!
//! A doubted block that this node owns returns to its earlier state. If the block is free and attachments use it, the agent claims the
//! block back at once. A block that another node owns becomes lost.

use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_datapath::boot_time;
use bobbin_messages::event::agent as event;

use super::read::{BlockInfo, Owner};
use super::{ReconcilerState, Requeue};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{Invalidation, Proof};
use crate::state::{Attachment, BlockEvent, BlockView, first_names};

/// How often the agent reads a doubted block again if a read did not show the owner.
const UNSETTLED_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait for the missing assignments of a block's attachments, before the agent claims the block back. After this time, the
/// agent claims the block without these assignments.
pub(crate) const RECREATE_TIMEOUT: Duration = Duration::from_secs(5);

impl ReconcilerState {
    /// Makes one step for a block in the state `doubted`. The read of the block settles only the doubts that existed when the read began.
    pub(super) async fn read_back(&self, name: &str, doubts: u32) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        let Some(node) = self.context.cluster.node() else { return Requeue::WithBackoff };
        let start = self.context.freshness.begin_read(boot_time());
        let read = self.api.get(name).await;
        self.context.freshness.observe_read(&read, boot_time());
        let read = match read {
            Ok(read) => read,
            Err(ReadError::NotFound) => return self.absent(&block).await,
            Err(error) => {
                tracing::debug!(block = name, %error, "the agent can't read a block that may have another owner, so the node allocates no address from the block; the agent retries the read");
                return Requeue::WithBackoff;
            }
        };
        match read.owner_of(&block.held, &node) {
            Owner::ThisNode if self.context.cluster.node_is_gone() => self.of_a_node_that_is_gone(name),
            Owner::ThisNode => {
                self.context.node_state.refresh(name, &read.uid, &read.resource_version, read.deleting);
                self.context.node_state.prove(name, start.proof(), false);
                match self.context.checkpoint.promote(name, BlockEvent::FoundOwned { now: boot_time(), doubts }).await {
                    Ok(_) => Requeue::Now,
                    Err(_) => Requeue::WithBackoff,
                }
            }
            Owner::EarlierNode => self.write_node(&read, &node).await,
            Owner::Free => self.reclaim_or_forget(&block, &read, &node).await,
            Owner::OtherNode => self.lost(&block, &read).await,
            Owner::Unknown => Requeue::After(UNSETTLED_RETRY_INTERVAL),
        }
    }

    /// Handles a doubted block that this node owns while the Node object is deleted or out of service. The agent releases the block if no
    /// attachment uses it.
    fn of_a_node_that_is_gone(&self, name: &str) -> Requeue {
        if self.context.node_state.release_doubted(name) {
            Requeue::Now
        } else {
            Requeue::After(UNSETTLED_RETRY_INTERVAL)
        }
    }

    async fn write_node(&self, read: &BlockInfo, node: &NodeInfo) -> Requeue {
        if self.context.cluster.node_is_gone() {
            return Requeue::After(UNSETTLED_RETRY_INTERVAL);
        }
        match self.api.claim(read, node).await {
            Outcome::Done(_) => {
                tracing::info!(
                    block = read.name,
                    "the block named the UID of an earlier Node of this name; the agent wrote the UID of the current Node into the block"
                );
                // The next step reads the block again and finds that this node owns it.
                Requeue::Now
            }
            Outcome::Refused(why) => {
                tracing::debug!(block = read.name, %why, "a block names the UID of an earlier Node of this name. The API server refused to replace this UID by the current UID; the agent retries");
                Requeue::WithBackoff
            }
            Outcome::Unknown(_) => Requeue::WithBackoff,
        }
    }

    /// Handles a doubted block that is free. If no attachment uses the block, the agent forgets the block. Otherwise the agent creates the
    /// attachments' missing assignments and claims the block back.
    async fn reclaim_or_forget(&self, block: &BlockView, read: &BlockInfo, node: &NodeInfo) -> Requeue {
        let name = &block.held.name;
        if self.context.node_state.found_free(name) {
            self.withdraw(block).await;
            return Requeue::Now;
        }
        if self.context.cluster.node_is_gone() {
            return Requeue::After(UNSETTLED_RETRY_INTERVAL);
        }
        self.recreate_assignments(&self.context.node_state.residents(name)).await;
        // After this node lost the block, another node may have owned it and assigned its addresses. So the agent must list the block's
        // assignments after the claim. Record this need before the claim, because the claim's answer may be lost.
        self.context.node_state.prove(name, Proof::AssignmentsUnseen, false);
        match self.api.claim(read, node).await {
            Outcome::Done(_) => {
                let sentence = reclaimed(block, &node.name);
                tracing::warn!(block = name, "{sentence}");
                self.context.events.on_node(&event::BLOCK_RECLAIMED, &sentence);
                Requeue::Now
            }
            Outcome::Refused(Refusal::Conflict) => Requeue::Now,
            Outcome::Refused(why) => {
                tracing::debug!(block = name, %why, "pods of this node use a block without an owner, and the API server refused this node's claim of the block; the agent retries");
                Requeue::WithBackoff
            }
            Outcome::Unknown(_) => Requeue::WithBackoff,
        }
    }

    /// Handles a doubted block that does not exist. If no attachment uses the block, the agent forgets the block. Otherwise the agent
    /// creates the attachments' missing assignments. Because of these assignments, the operator creates the block again for this node.
    async fn absent(&self, block: &BlockView) -> Requeue {
        let name = &block.held.name;
        if self.context.node_state.found_free(name) {
            self.withdraw(block).await;
            return Requeue::Now;
        }
        self.recreate_assignments(&self.context.node_state.residents(name)).await;
        let pool = &block.held.pool;
        let sentence = format!(
            "block {name} ({}) of pool {pool} was deleted although {} pods of node {} use addresses of the block. The node allocates no address from the block until the operator creates the block again. If that does not happen, find the cause in the log of bobbin-operator and with: kubectl get addresspool {pool} -o yaml",
            block.held.range,
            block.residents,
            self.context.cluster.node_name()
        );
        self.context.events.on_node(&event::BLOCK_MISSING, &sentence);
        Requeue::After(UNSETTLED_RETRY_INTERVAL)
    }

    /// Handles a block that another node owns: withdraws its route, and reports the pods that still use its addresses.
    async fn lost(&self, block: &BlockView, read: &BlockInfo) -> Requeue {
        let name = &block.held.name;
        let stranded = self.context.node_state.found_foreign(name);
        self.withdraw(block).await;
        let owner = read.node_name.as_deref().unwrap_or_default();
        let taker = match owner {
            _ if read.range.is_some_and(|range| range != block.held.range) => {
                "a block with other addresses has this name now".to_owned()
            }
            "" => "the block was released and is being deleted".to_owned(),
            owner => format!("node {owner} has it now"),
        };
        let node = self.context.cluster.node_name();
        if stranded.is_empty() {
            tracing::info!(
                "node {node} no longer has block {name}: {taker}; no pod on this node used the block's addresses"
            );
        } else {
            let sentence = format!(
                "node {node} lost block {name} ({}) of pool {}: {taker}. The node no longer exports the block's route, but {} pods of the node still use the block's addresses. Delete these pods, so that their replacements get other addresses: {}",
                block.held.range,
                block.held.pool,
                stranded.len(),
                first_names(&stranded),
            );
            tracing::error!(block = name, owner, pods = stranded.len(), "{sentence}");
            self.context.events.on_node(&event::BLOCK_LOST, &sentence);
            for attachment in &stranded {
                let sentence = format!(
                    "node {node} no longer has block {name} ({taker}), but {who} still has address {} of this block. {who} may be unreachable, or another pod may get the same address. Delete {who}, so that its replacement gets another address",
                    attachment.pair,
                    who = attachment.who()
                );
                self.context.events.on_pod(&attachment.pod, &event::BLOCK_LOST, &sentence);
            }
        }
        // The invalidation triggers a resync, which also compares the assignments in the lost block.
        self.context.freshness.invalidate(Invalidation::BlockLost);
        Requeue::Now
    }

    async fn withdraw(&self, block: &BlockView) {
        if let Err(error) = self.context.exports.withdraw(block.held.range).await {
            tracing::warn!(block = block.held.name, %error, "the agent could not withdraw the route of a block that the node no longer has; the next network reconcile removes the route");
        }
    }

    /// Creates the missing assignments of the attachments that use a block. The agent does this before it claims the block back. If another
    /// node claims the block first, that node finds the assignments.
    async fn recreate_assignments(&self, residents: &[Attachment]) {
        self.context.assignment_writer.recreate_missing(residents, RECREATE_TIMEOUT).await;
    }
}

/// The message about a free block that the node claimed back. The node can't see who released the block, so the message names both possible
/// causes.
fn reclaimed(block: &BlockView, node: &str) -> String {
    let held = &block.held;
    format!(
        "block {name} ({}) of pool {} was free although {} pods of node {node} use addresses of the block. The node therefore claimed the block back. Either bobbin-operator released the block because Node {node} was deleted and not registered again in time, or somebody edited or restored the block. To see who wrote the block, run: kubectl get addressblock {name} -o yaml --show-managed-fields",
        held.range,
        held.pool,
        block.residents,
        name = held.name
    )
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::BlockRange;

    use super::*;
    use crate::state::{BlockState, ClaimedBlock};

    #[test]
    fn the_message_about_a_reclaimed_block_names_both_causes() {
        let held = ClaimedBlock {
            name: "p-3".to_owned(),
            pool: "p".to_owned(),
            range: BlockRange::parse(Some("10.0.0.0/28"), None).unwrap(),
            uid: String::new(),
            resource_version: String::new(),
            index: 3,
            free_since: None,
            deleting: false,
        };
        let view = BlockView { held, state: BlockState::Serving, residents: 2, proof: Proof::None, was_used: true };
        let text = reclaimed(&view, "n1");
        assert!(text.contains("block p-3 (10.0.0.0/28) of pool p was free although 2 pods of node n1"), "{text}");
        assert!(text.contains("Either bobbin-operator released the block because Node n1 was deleted"), "{text}");
        assert!(text.contains("or somebody edited or restored the block"), "{text}");
    }
}
