//! A block in doubt: the API server says whose it is. What is ours goes on, what is free and has residents is claimed back at once, what
//! is another node's is lost.

use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_datapath::boot_time;

use super::read::{BlockInfo, Owner};
use super::{ReconcilerState, Requeue};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{Invalidation, Proof};
use crate::state::{Attachment, BlockEvent, BlockView, first_names};

/// How often a block that can't be settled is read.
const UNSETTLED_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long the records of residents may take before their block is claimed back without them.
pub(crate) const RECREATE_TIMEOUT: Duration = Duration::from_secs(5);

impl ReconcilerState {
    /// One step of a block in `doubted`. What is read settles only the doubts that there were when the read began.
    pub(super) async fn read_back(&self, name: &str, doubts: u32) -> Requeue {
        let Some(block) = self.context.node_state.block(name) else { return Requeue::Now };
        let Some(node) = self.context.cluster.node() else { return Requeue::WithBackoff };
        let start = self.context.freshness.begin_read(boot_time());
        let read = match self.api.get(name).await {
            Ok(read) => read,
            Err(ReadError::NotFound) => return self.absent(&block).await,
            Err(error) => {
                tracing::debug!(block = name, %error, "a block in doubt can't be read; nothing is assigned from it until it is");
                if let ReadError::Unreachable(why) = &error {
                    self.context.freshness.observe_call(Some(why), boot_time());
                }
                return Requeue::WithBackoff;
            }
        };
        self.context.freshness.answered(boot_time());
        match read.owner(&node) {
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

    /// The Node was deleted: what is in use stays, what is not goes back while the agent still can.
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
                tracing::info!(block = read.name, "wrote this Node's UID into a block of an earlier Node of its name");
                // Read again: the next step finds it ours.
                Requeue::Now
            }
            Outcome::Refused(why) => {
                tracing::debug!(block = read.name, %why, "a block of an earlier Node was not renewed yet");
                Requeue::WithBackoff
            }
            Outcome::Unknown(_) => Requeue::WithBackoff,
        }
    }

    /// The block is free: forgotten without residents, else their records are written and it is claimed back.
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
        // Another node may have had it meanwhile, also if the answer is lost: its residents' records are looked at first.
        self.context.node_state.prove(name, Proof::AssignmentsUnseen, false);
        match self.api.claim(read, node).await {
            Outcome::Done(_) => {
                let sentence = format!(
                    "block {name} ({}) of pool {} was free although {} pods of node {} have addresses of it: the node claimed it back; see who edited or restored it: kubectl get addressblock {name} -o yaml --show-managed-fields",
                    block.held.range, block.held.pool, block.residents, node.name
                );
                tracing::warn!(block = name, "{sentence}");
                self.context.events.node_warning("BlockReclaimed", &sentence);
                Requeue::Now
            }
            Outcome::Refused(Refusal::Conflict) => Requeue::Now,
            Outcome::Refused(why) => {
                tracing::debug!(block = name, %why, "a block with residents was not claimed back yet");
                Requeue::WithBackoff
            }
            Outcome::Unknown(_) => Requeue::WithBackoff,
        }
    }

    /// There is no such block. With residents the operator carves it again, claimed for this node.
    async fn absent(&self, block: &BlockView) -> Requeue {
        let name = &block.held.name;
        if self.context.node_state.found_free(name) {
            self.withdraw(block).await;
            return Requeue::Now;
        }
        self.recreate_assignments(&self.context.node_state.residents(name)).await;
        let pool = &block.held.pool;
        let sentence = format!(
            "block {name} ({}) of pool {pool} was deleted although {} pods of node {} have addresses of it: nothing is assigned from it until the operator carves it again; see: kubectl get addresspool {pool} -o yaml, and the log of bobbin-operator",
            block.held.range,
            block.residents,
            self.context.cluster.node_name()
        );
        self.context.events.node_warning("BlockMissing", &sentence);
        Requeue::After(UNSETTLED_RETRY_INTERVAL)
    }

    /// Another node has the block: its route goes; pods that have addresses of it run on and are reported.
    async fn lost(&self, block: &BlockView, read: &BlockInfo) -> Requeue {
        let name = &block.held.name;
        let stranded = self.context.node_state.found_foreign(name);
        self.withdraw(block).await;
        let owner = read.node_name.as_deref().unwrap_or_default();
        let taker = match owner {
            "" => "it was freed and is being deleted".to_owned(),
            owner => format!("node {owner} has it now"),
        };
        let node = self.context.cluster.node_name();
        if stranded.is_empty() {
            tracing::info!("node {node} no longer has block {name}: {taker}; no pod here used it");
        } else {
            let sentence = format!(
                "node {node} lost block {name} ({}) of pool {}: {taker}; its route is withdrawn, and {} pods still have addresses of it: delete them, so that they get others: {}",
                block.held.range,
                block.held.pool,
                stranded.len(),
                first_names(&stranded),
            );
            tracing::error!(block = name, owner, pods = stranded.len(), "{sentence}");
            self.context.events.node_warning("BlockLost", &sentence);
            for attachment in &stranded {
                let sentence = format!(
                    "address {} of {} is of block {name}, which is not node {node}'s any more ({taker}): others may not reach the pod, or may get its address; delete the pod, so that it gets another address",
                    attachment.pair,
                    attachment.who()
                );
                self.context.events.pod_warning(&attachment.pod, "BlockLost", &sentence);
            }
        }
        // The resync that follows compares the records of its residents, too.
        self.context.freshness.invalidate(Invalidation::BlockLost);
        Requeue::Now
    }

    async fn withdraw(&self, block: &BlockView) {
        if let Err(error) = self.context.exports.withdraw(block.held.range).await {
            tracing::warn!(block = block.held.name, %error, "the route of a block that is not ours is still exported; the next comparison removes it");
        }
    }

    /// Residents are recorded before their block is claimed back: who claims it first sees them then.
    async fn recreate_assignments(&self, residents: &[Attachment]) {
        self.context.assignment_writer.recreate_missing(residents, RECREATE_TIMEOUT).await;
    }
}
