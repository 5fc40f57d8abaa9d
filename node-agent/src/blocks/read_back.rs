//! A block in doubt: the API server says whose it is. What is ours goes on, what is free and has residents is claimed back at once, what
//! is another node's is lost.

use std::time::Duration;

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_datapath::boot_time;

use super::read::{BlockRead, Owner};
use super::{Inner, Step};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{Proof, Trouble};
use crate::state::{Attachment, BlockEvent, BlockView, first_names};

/// How often a block that can't be settled is read.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(10);
/// How long the records of residents may take before their block is claimed back without them.
pub(crate) const RECORDS_DEADLINE: Duration = Duration::from_secs(5);

impl Inner {
    /// One step of a block in `doubted`. What is read settles only the doubts that there were when the read began.
    pub(super) async fn read_back(&self, name: &str, doubts: u32) -> Step {
        let Some(block) = self.with.node_state.block(name) else { return Step::Again };
        let Some(node) = self.with.view.node() else { return Step::Failed };
        let start = self.with.freshness.begin_read(boot_time());
        let read = match self.api.get(name).await {
            Ok(read) => read,
            Err(ReadError::NotFound) => return self.absent(&block).await,
            Err(error) => {
                tracing::debug!(block = name, %error, "a block in doubt can't be read; nothing is assigned from it until it is");
                if let ReadError::Unreachable(why) = &error {
                    self.with.freshness.outcome(Some(why), boot_time());
                }
                return Step::Failed;
            }
        };
        self.with.freshness.answered(boot_time());
        match read.owner(&node) {
            Owner::Us if self.with.view.node_is_gone() => self.of_a_node_that_is_gone(name),
            Owner::Us => {
                self.with.node_state.refresh(name, &read.uid, &read.resource_version, read.deleting);
                self.with.node_state.prove(name, start.proof(), false);
                match self.with.checkpoint.promote(name, BlockEvent::FoundOwned { now: boot_time(), doubts }).await {
                    Ok(_) => Step::Again,
                    Err(_) => Step::Failed,
                }
            }
            Owner::EarlierSelf => self.write_node(&read, &node).await,
            Owner::Nobody => self.vacant(&block, &read, &node).await,
            Owner::Others => self.lost(&block, &read).await,
            Owner::Unknown => Step::Wait(UNSETTLED_PAUSE),
        }
    }

    /// The Node was deleted: what is in use stays, what is not goes back while the agent still can.
    fn of_a_node_that_is_gone(&self, name: &str) -> Step {
        if self.with.node_state.release_doubted(name) { Step::Again } else { Step::Wait(UNSETTLED_PAUSE) }
    }

    async fn write_node(&self, read: &BlockRead, node: &NodeInfo) -> Step {
        if self.with.view.node_is_gone() {
            return Step::Wait(UNSETTLED_PAUSE);
        }
        match self.api.claim(read, node).await {
            Outcome::Done(_) => {
                tracing::info!(block = read.name, "wrote this Node's UID into a block of an earlier Node of its name");
                // Read again: the next step finds it ours.
                Step::Again
            }
            Outcome::Refused(why) => {
                tracing::debug!(block = read.name, %why, "a block of an earlier Node was not renewed yet");
                Step::Failed
            }
            Outcome::Unknown(_) => Step::Failed,
        }
    }

    /// The block is free: forgotten without residents, else their records are written and it is claimed back.
    async fn vacant(&self, block: &BlockView, read: &BlockRead, node: &NodeInfo) -> Step {
        let name = &block.held.name;
        if self.with.node_state.found_free(name) {
            self.withdraw(block).await;
            return Step::Again;
        }
        if self.with.view.node_is_gone() {
            return Step::Wait(UNSETTLED_PAUSE);
        }
        self.record_residents(&self.with.node_state.residents(name)).await;
        // Another node may have had it meanwhile, also if the answer is lost: its residents' records are looked at first.
        self.with.node_state.prove(name, Proof::RecordsUnseen, false);
        match self.api.claim(read, node).await {
            Outcome::Done(_) => {
                let sentence = format!(
                    "block {name} ({}) of pool {} was free although {} pods of node {} have addresses of it: the node claimed it back; see who edited or restored it: kubectl get addressblock {name} -o yaml --show-managed-fields",
                    block.held.range, block.held.pool, block.residents, node.name
                );
                tracing::warn!(block = name, "{sentence}");
                self.with.events.node_warning("BlockReclaimed", &sentence);
                Step::Again
            }
            Outcome::Refused(Refusal::Conflict) => Step::Again,
            Outcome::Refused(why) => {
                tracing::debug!(block = name, %why, "a block with residents was not claimed back yet");
                Step::Failed
            }
            Outcome::Unknown(_) => Step::Failed,
        }
    }

    /// There is no such block. With residents the operator carves it again, claimed for this node.
    async fn absent(&self, block: &BlockView) -> Step {
        let name = &block.held.name;
        if self.with.node_state.found_free(name) {
            self.withdraw(block).await;
            return Step::Again;
        }
        self.record_residents(&self.with.node_state.residents(name)).await;
        let pool = &block.held.pool;
        let sentence = format!(
            "block {name} ({}) of pool {pool} was deleted although {} pods of node {} have addresses of it: nothing is assigned from it until the operator carves it again; see: kubectl get addresspool {pool} -o yaml, and the log of bobbin-operator",
            block.held.range,
            block.residents,
            self.with.view.node_name()
        );
        self.with.events.node_warning("BlockMissing", &sentence);
        Step::Wait(UNSETTLED_PAUSE)
    }

    /// Another node has the block: its route goes; pods that have addresses of it run on and are reported.
    async fn lost(&self, block: &BlockView, read: &BlockRead) -> Step {
        let name = &block.held.name;
        let stranded = self.with.node_state.found_foreign(name);
        self.withdraw(block).await;
        let owner = read.node_name.as_deref().unwrap_or_default();
        let taker = match owner {
            "" => "it was freed and is being deleted".to_owned(),
            owner => format!("node {owner} has it now"),
        };
        let node = self.with.view.node_name();
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
            self.with.events.node_warning("BlockLost", &sentence);
            for attachment in &stranded {
                let sentence = format!(
                    "address {} of {} is of block {name}, which is not node {node}'s any more ({taker}): others may not reach the pod, or may get its address; delete the pod, so that it gets another address",
                    attachment.pair,
                    attachment.who()
                );
                self.with.events.pod_warning(&attachment.pod, "BlockLost", &sentence);
            }
        }
        // The resync that follows compares the records of its residents, too.
        self.with.freshness.trouble(Trouble::BlockLost);
        Step::Again
    }

    async fn withdraw(&self, block: &BlockView) {
        if let Err(error) = self.with.exports.withdraw(block.held.range).await {
            tracing::warn!(block = block.held.name, %error, "the route of a block that is not ours is still exported; the next comparison removes it");
        }
    }

    /// Residents are recorded before their block is claimed back: who claims it first sees them then.
    async fn record_residents(&self, residents: &[Attachment]) {
        self.with.assignment_writer.create_all_again(residents, RECORDS_DEADLINE).await;
    }
}
