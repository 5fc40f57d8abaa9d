//! Compares the node's blocks with a consistent LIST response. A block that the response does not confirm becomes doubted. If the node's
//! state lacks an owned block, the agent reads the block again and adds it. The agent also corrects outdated IP addresses of the Node in a
//! block.

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_datapath::boot_time;
use bobbin_messages::event::agent as event;

use super::{PassError, Resync};
use crate::assignments::list_assignments_in_block;
use crate::blocks::RECREATE_TIMEOUT;
use crate::blocks::read::{BlockInfo, Owner};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{Proof, ReadStart, WatchedKind};
use crate::metrics::ResyncRepair;
use crate::state::{BlockEvent, BlockState, BlockView, ClaimedBlock};

impl Resync {
    /// Compares the node's blocks with a consistent LIST response. Returns the start of this read.
    pub(super) async fn compare_blocks(&self) -> Result<ReadStart, PassError> {
        let Some(node) = self.cluster.node() else { return Err(PassError::NodeUnknown) };
        let (mut start, floor) = (self.freshness.begin_read(boot_time()), self.freshness.version(WatchedKind::Blocks));
        let own = self.block_api().list_own(&node.name).await?;
        self.freshness.answered(boot_time());
        if self.freshness.observe_version(WatchedKind::Blocks, &own.resource_version, floor) {
            start = self.freshness.begin_read(boot_time());
        }
        let (mut misaddressed, mut lost) = (Vec::new(), Vec::new());
        // This loop must not await. Otherwise the watch could apply a newer event during the loop, and the older list would overwrite that
        // event.
        for held in self.node_state.blocks() {
            match own.blocks.get(&held.held.name) {
                // A lost block may have changed since the agent read the list, so the agent reads the block again.
                _ if held.state == BlockState::Lost => lost.push(held.held),
                Some(read) if read.owner_of(&held.held, &node) == Owner::ThisNode => {
                    self.node_state.refresh(&read.name, &read.uid, &read.resource_version, read.deleting);
                    self.node_state.prove(&read.name, start.proof(), false);
                    if !read.names_addresses_of(&node) {
                        misaddressed.push(read);
                    }
                }
                Some(read) if !read.readable => {}
                _ => {
                    self.node_state.on(&held.held.name, BlockEvent::Doubt);
                }
            }
        }
        for read in misaddressed {
            self.write_addresses(read, &node).await;
        }
        for held in lost {
            self.try_claim_back(&held, &node).await;
        }
        self.freshness.list_answered(WatchedKind::Blocks, start);
        for name in own.blocks.keys().filter(|name| self.node_state.block_state(name).is_none()) {
            self.add_missing(name, &node).await?;
        }
        Ok(start)
    }

    /// Writes the Node's current IP addresses into an owned block that has outdated IP addresses.
    async fn write_addresses(&self, read: &BlockInfo, node: &NodeInfo) {
        match self.block_api().claim(read, node).await {
            Outcome::Done(now) => {
                self.node_state.refresh(&now.name, &now.uid, &now.resource_version, now.deleting);
                self.metrics.resync_repaired(ResyncRepair::NodeAddresses);
                tracing::info!(block = read.name, "updated the Node's IP addresses (nodeIPv4, nodeIPv6) in the block");
            }
            // Do not retry here: the watch shows the block's current version, and triggers the next pass if the addresses are still
            // outdated.
            Outcome::Refused(why) => {
                tracing::debug!(block = read.name, %why, "the agent could not write the Node's IP addresses into the block's fields nodeIPv4 and nodeIPv6");
            }
            Outcome::Unknown(why) => {
                tracing::debug!(block = read.name, %why, "the agent does not know whether it succeeded in writing the Node's IP addresses into the block's fields nodeIPv4 and nodeIPv6");
            }
        }
    }

    /// Adds an owned block that the node's state lacks. A new read must first confirm that this node owns the block, because the node may
    /// have released the block since the list was read.
    async fn add_missing(&self, name: &str, node: &NodeInfo) -> Result<(), ReadError> {
        let start = self.freshness.begin_read(boot_time());
        let mut read = match self.block_api().get(name).await {
            Err(ReadError::NotFound) => return Ok(()),
            read => read?,
        };
        if read.owner(node) == Owner::EarlierNode && !self.cluster.node_is_gone() {
            match self.block_api().claim(&read, node).await {
                Outcome::Done(now) => read = now,
                // The next pass reads the block again.
                Outcome::Refused(Refusal::Conflict) => {
                    self.trigger.notify_one();
                    return Ok(());
                }
                Outcome::Refused(refusal) => return Err(ReadError::Refused(refusal)),
                Outcome::Unknown(why) => return Err(ReadError::Unreachable(why)),
            }
        }
        if read.owner(node) != Owner::ThisNode || self.node_state.block_state(name).is_some() {
            return Ok(());
        }
        let pool = self.cluster.pool(&read.pool);
        // The argument `true`: the agent can't know whether the block had Bobbin's finalizer before the claim, so it assumes that the block
        // had the finalizer.
        match self.claims.add_owned(&read, true, pool.as_deref(), start, false) {
            Ok(_) => {
                self.metrics.resync_repaired(ResyncRepair::BlockUnknown);
                tracing::info!(
                    block = name,
                    "the API server lists this node as the owner of a block that the agent did not know; the agent has added the block"
                );
                // The operator may release the blocks of a deleted Node, so the agent assigns nothing from this block.
                if self.cluster.node_is_gone() {
                    self.node_state.on(name, BlockEvent::Doubt);
                }
            }
            Err(why) => {
                let why =
                    format!("{why}. Correct the block. To see the block, run: kubectl get addressblock {name} -o yaml");
                tracing::error!(block = name, "{why}");
                self.events.on_node(&event::BLOCK_UNREADABLE, &why);
            }
        }
        Ok(())
    }

    /// Claims a lost block back if the block is free again and attachments use it. The agent first creates the assignments of these
    /// attachments.
    async fn try_claim_back(&self, held: &ClaimedBlock, node: &NodeInfo) {
        let name = &held.name;
        let read = match self.block_api().get(name).await {
            Ok(read) => read,
            Err(error) => {
                return tracing::debug!(block = name, %error, "the agent can't read a lost block; the next pass tries again");
            }
        };
        match read.owner_of(held, node) {
            Owner::Free if !self.cluster.node_is_gone() => {
                self.assignment_writer.recreate_missing(&self.node_state.residents(name), RECREATE_TIMEOUT).await;
                if let Outcome::Done(claimed) = self.block_api().claim(&read, node).await {
                    tracing::info!(
                        block = name,
                        "the node claimed a lost block back, because the block was free again"
                    );
                    self.claimed_back(&claimed);
                }
            }
            // An earlier claim of the block succeeded, but the agent did not get the answer.
            Owner::ThisNode => self.claimed_back(&read),
            _ => {}
        }
    }

    fn claimed_back(&self, block: &BlockInfo) {
        let (now, not_before) = self.claims.quiet_time();
        self.metrics.resync_repaired(ResyncRepair::BlockLost);
        self.node_state.refresh(&block.name, &block.uid, &block.resource_version, block.deleting);
        self.node_state.on(&block.name, BlockEvent::ClaimedBack { now, not_before });
    }

    /// For each block with the proof [`Proof::AssignmentsUnseen`], lists the block's assignments and excludes the addresses of these
    /// assignments from allocation. The addresses of this node's own attachments are not excluded. Then records the read `listed` as the
    /// proof that this node owns the block.
    pub(super) async fn list_assignments_of_new_blocks(&self, listed: ReadStart) -> Result<(), ReadError> {
        let settled = |state| !matches!(state, BlockState::Doubted { .. } | BlockState::Lost);
        let needs_list = |block: &BlockView| block.proof == Proof::AssignmentsUnseen && settled(block.state);
        for block in self.node_state.blocks().into_iter().filter(needs_list) {
            // List the assignments only after the quiet time. During the quiet time, other nodes may still create missing assignments of
            // their pods.
            if self.freshness.quiet_until(boot_time()).is_some() {
                return Ok(());
            }
            for assignment in list_assignments_in_block(&self.clients, &block.held.name).await? {
                if !self.is_held(&assignment) {
                    self.exclude(&block.held.range, &assignment);
                }
            }
            self.node_state.prove(&block.held.name, listed.proof(), true);
        }
        Ok(())
    }
}
