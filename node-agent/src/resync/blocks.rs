//! Own blocks: what a consistent list says of them, brought into the ledger. What the list does not say is ours is put in doubt and read
//! by its own task; what the ledger lacks is read once more and taken in; addresses of the Node are put right.

use bobbin_api_client::{Outcome, ReadError, Refusal};
use bobbin_datapath::boot_time;

use super::Resync;
use crate::assignments::list_assignments_in_block;
use crate::blocks::RECREATE_TIMEOUT;
use crate::blocks::read::{BlockInfo, Owner};
use crate::cluster::NodeInfo;
use crate::cluster::freshness::{Proof, ReadStart, WatchedKind};
use crate::state::{BlockEvent, BlockState, BlockView};

impl Resync {
    /// Compares own blocks with the ledger. Returns when its list was begun.
    pub(super) async fn compare_blocks(&self) -> Result<ReadStart, ReadError> {
        let Some(node) = self.cluster.node() else { return Err(ReadError::NotFound) };
        let (mut start, floor) = (self.freshness.begin_read(boot_time()), self.freshness.version(WatchedKind::Blocks));
        let own = self.block_api().list_own(&node.name).await?;
        self.freshness.answered(boot_time());
        if self.freshness.observe_version(WatchedKind::Blocks, &own.resource_version, floor) {
            start = self.freshness.begin_read(boot_time());
        }
        let (mut misaddressed, mut lost) = (Vec::new(), Vec::new());
        // Nothing is awaited here: what the watch shows later than the list must not be overwritten.
        for held in self.node_state.blocks() {
            match own.blocks.get(&held.held.name) {
                // What happened to it since the list, only a read tells.
                _ if held.state == BlockState::Lost => lost.push(held.held.name),
                Some(read) if read.owner(&node) == Owner::ThisNode => {
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
        for name in lost {
            self.try_claim_back(&name, &node).await;
        }
        self.freshness.list_answered(WatchedKind::Blocks, start);
        for name in own.blocks.keys().filter(|name| self.node_state.block_state(name).is_none()) {
            self.take_in(name, &node).await?;
        }
        Ok(start)
    }

    /// A block that is ours names addresses that the Node does not have, or not any more.
    async fn write_addresses(&self, read: &BlockInfo, node: &NodeInfo) {
        match self.block_api().claim(read, node).await {
            Outcome::Done(now) => {
                self.node_state.refresh(&now.name, &now.uid, &now.resource_version, now.deleting);
                tracing::info!(block = read.name, "wrote the node's addresses into its block");
            }
            // The watch shows the block as it is, and wakes the next resync.
            Outcome::Refused(why) => tracing::debug!(block = read.name, %why, "a block's addresses were not put right"),
            Outcome::Unknown(why) => tracing::debug!(block = read.name, %why, "a block's addresses were not put right"),
        }
    }

    /// Takes in a block that the API server says is ours and that the ledger lacks, if a read that began just now says so too: the list may
    /// be older than a release that has ended since.
    async fn take_in(&self, name: &str, node: &NodeInfo) -> Result<(), ReadError> {
        let start = self.freshness.begin_read(boot_time());
        let mut read = match self.block_api().get(name).await {
            Err(ReadError::NotFound) => return Ok(()),
            read => read?,
        };
        if read.owner(node) == Owner::EarlierNode && !self.cluster.node_is_gone() {
            match self.block_api().claim(&read, node).await {
                Outcome::Done(now) => read = now,
                // The next pass reads it again.
                Outcome::Refused(Refusal::Conflict) => {
                    self.hint.notify_one();
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
        // Whether it had the finalizer before its claim is not known any more.
        match self.claims.add_owned(&read, true, pool.as_deref(), start, false) {
            Ok(_) => tracing::info!(block = name, "took in a block that the API server says is this node's"),
            Err(why) => {
                tracing::error!(block = name, "{why}");
                self.events.node_warning("BlockUnreadable", &why);
            }
        }
        Ok(())
    }

    /// A lost block with residents that is free again is claimed back, their records first.
    async fn try_claim_back(&self, name: &str, node: &NodeInfo) {
        let read = match self.block_api().get(name).await {
            Ok(read) => read,
            Err(error) => return tracing::debug!(block = name, %error, "a lost block can't be read"),
        };
        match read.owner(node) {
            Owner::Free if !self.cluster.node_is_gone() => {
                self.assignment_writer.recreate_missing(&self.node_state.residents(name), RECREATE_TIMEOUT).await;
                if let Outcome::Done(ours) = self.block_api().claim(&read, node).await {
                    tracing::info!(block = name, "claimed a lost block back: it was free again");
                    self.claimed_back(&ours);
                }
            }
            // The answer to an earlier claim was lost.
            Owner::ThisNode => self.claimed_back(&read),
            _ => {}
        }
    }

    fn claimed_back(&self, ours: &BlockInfo) {
        let (now, not_before) = self.claims.quiet_time();
        self.node_state.refresh(&ours.name, &ours.uid, &ours.resource_version, ours.deleting);
        self.node_state.on(&ours.name, BlockEvent::ClaimedBack { now, not_before });
    }

    /// Lists the records of each block with [`Proof::AssignmentsUnseen`]. An address with a record that no attachment here has is passed
    /// over; then the block is proven as of `listed`, the list of own blocks.
    pub(super) async fn see_records_of_new_blocks(&self, listed: ReadStart) -> Result<(), ReadError> {
        let settled = |state| !matches!(state, BlockState::Doubted { .. } | BlockState::Lost);
        let unseen = |block: &BlockView| block.proof == Proof::AssignmentsUnseen && settled(block.state);
        for block in self.node_state.blocks().into_iter().filter(unseen) {
            // The list must be made after the quiet time, in which other nodes write the records of their residents.
            if self.freshness.quiet_until(boot_time()).is_some() {
                return Ok(());
            }
            for record in list_assignments_in_block(&self.clients, &block.held.name).await? {
                if !self.is_held(&record) {
                    self.pass_over(&block.held.range, &record);
                }
            }
            self.node_state.prove(&block.held.name, listed.proof(), true);
        }
        Ok(())
    }
}
