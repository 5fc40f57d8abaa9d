//! Allocates and releases addresses, cools them down, and excludes them from allocation. Pure.

use std::time::Duration;

use bobbin_ipam::block::BlockName;
use bobbin_ipam::demand::BlockUse;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};

use super::block::BlockEvent;
use super::block_entry::{BlockEntry, KnownBlock};
use super::inventory::Inventory;
use super::{
    Allocation, AllocationRequest, AssignError, Attachment, ConflictingAssignment, CoolingAddress, FencingToken,
};
use crate::cluster::freshness::Proof;

impl Inventory {
    /// Allocates an address. If `early` is true, allocates the address that has been cooling down longest, although its cool-down has not
    /// ended.
    pub(super) fn assign(
        &mut self,
        request: &AllocationRequest<'_>,
        now: BootTime,
        early: bool,
    ) -> Result<Allocation, AssignError> {
        if let Some(known) = self.attachments.get(request.key) {
            return Err(AssignError::AlreadyAllocated(Box::new(known.clone())));
        }
        let serving: Vec<(&String, &BlockEntry, &KnownBlock)> = self
            .blocks
            .iter()
            .filter(|(_, block)| block.pool == request.pool && block.state().assignable())
            .filter_map(|(name, block)| Some((name, block, block.known.as_ref()?)))
            .collect();
        if serving.is_empty() {
            return Err(AssignError::NoBlock);
        }
        let found = if early {
            let longest = |(name, block, known): &(&String, &BlockEntry, &KnownBlock)| {
                known.allocator.longest_cooling().map(|(offset, since)| (since, (*name).clone(), block.epoch(), offset))
            };
            serving.iter().filter_map(longest).min().map(|(_, name, epoch, offset)| (name, epoch, offset))
        } else {
            serving
                .iter()
                .filter_map(|(name, block, known)| {
                    let offset = known.allocator.pick_cooled(now, request.cooldown)?;
                    let fullest = (known.allocator.held(), std::cmp::Reverse(known.held.index));
                    Some((fullest, ((*name).clone(), block.epoch(), offset)))
                })
                .max_by_key(|(fullest, _)| *fullest)
                .map(|(_, found)| found)
        };
        let blocks = serving.len();
        let (name, epoch, offset) = found.ok_or(AssignError::NoFreeAddress { blocks })?;
        let known = self.blocks.get_mut(&name).and_then(|block| block.known.as_mut()).ok_or(AssignError::NoBlock)?;
        let pair = known.held.range.pair(offset).ok_or(AssignError::NoFreeAddress { blocks })?;
        known.hold(offset);
        let token = FencingToken { block: name.clone(), epoch, proof: known.proof };
        let attachment = request.attachment(pair, name);
        self.attachments.insert(request.key.clone(), attachment.clone());
        Ok(Allocation { attachment, token })
    }

    /// Whether the token is still valid. A token becomes invalid when its block becomes doubted, is lost or is replaced.
    pub(super) fn token_is_current(&self, token: &FencingToken) -> bool {
        self.blocks.get(&token.block).is_some_and(|block| block.epoch() == token.epoch)
    }

    pub(super) fn restore_attachment(&mut self, mut attachment: Attachment) {
        if let Some((known, offset)) = self.find(attachment.pair) {
            known.hold(offset);
            attachment.block.clone_from(&known.held.name);
            attachment.pool.clone_from(&known.held.pool);
        }
        self.attachments.insert(attachment.key.clone(), attachment);
    }

    pub(super) fn release(&mut self, key: &AttachmentKey, now: BootTime) -> Option<Attachment> {
        let attachment = self.attachments.remove(key)?;
        // Only a fault can give two attachments the same address. The address stays in use until both attachments have ended.
        let shared = self
            .attachments
            .values()
            .any(|other| other.pair.addresses().any(|address| attachment.pair.addresses().any(|own| own == address)));
        if !shared {
            match self.find(attachment.pair) {
                Some((known, offset)) => {
                    known.free(offset, now);
                    let name = known.held.name.clone();
                    if self.residents(&name) == Some(0) {
                        // The event `Vacated` has an effect only on a lost block.
                        self.on(&name, BlockEvent::Vacated, now);
                    }
                }
                None => self.cool_one(attachment.pair, now),
            }
        }
        Some(attachment)
    }

    /// Excludes an address from allocation. Returns true if the conflict is new.
    pub(super) fn exclude(&mut self, conflict: ConflictingAssignment) -> bool {
        let pair = conflict.pair;
        let is_new = self.conflicts.get(&pair) != Some(&conflict);
        self.conflicts.insert(pair, conflict);
        if let Some((known, offset)) = self.find(pair) {
            known.allocator.exclude(offset);
        }
        is_new
    }

    /// Records that other nodes may have assignments in the block of this address.
    pub(super) fn forget_assignments_listed(&mut self, pair: IpPair) {
        if let Some((known, _)) = self.find(pair) {
            known.proof = Proof::AssignmentsUnseen;
        }
    }

    /// Ends the exclusion of an address. The node may allocate the address again after the address has cooled down. Returns true if the
    /// address was excluded.
    pub(super) fn end_exclusion(&mut self, pair: IpPair, now: BootTime) -> bool {
        let excluded = self.conflicts.remove(&pair).is_some();
        if excluded && let Some((known, offset)) = self.find(pair) {
            known.allocator.include(offset);
            known.allocator.cool_since(offset, now);
        }
        excluded
    }

    pub(super) fn conflicts(&self) -> Vec<ConflictingAssignment> {
        self.conflicts.values().cloned().collect()
    }

    /// For each in-service block of the pool, counts the used, cooling and usable addresses.
    pub(super) fn pool_use(&self, pool: &str, cooldown: Duration, now: BootTime) -> Vec<BlockUse> {
        let serving = self.blocks.values().filter(|block| block.pool == pool && block.state().assignable());
        serving
            .filter_map(|block| block.known.as_ref())
            .map(|known| BlockUse {
                name: BlockName(known.held.name.clone()),
                held: known.allocator.held(),
                cooling: known.allocator.cooling(now, cooldown),
                usable: known.allocator.usable(),
                empty_for: known.empty_since.map(|since| now.since(since)),
                was_used: known.was_used,
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn cooling(&self) -> Vec<CoolingAddress> {
        let known = self.blocks.values().filter_map(|block| block.known.as_ref());
        let in_blocks = known.flat_map(|known| {
            let pair_at = |(offset, since)| known.held.range.pair(offset).map(|pair| CoolingAddress { pair, since });
            known.allocator.cooling_addresses().filter_map(pair_at)
        });
        let elsewhere = self.cooling.iter().map(|(pair, since)| CoolingAddress { pair: *pair, since: *since });
        in_blocks.chain(elsewhere).collect()
    }

    pub(super) fn cool(&mut self, addresses: &[CoolingAddress]) {
        for CoolingAddress { pair, since } in addresses {
            self.cool_one(*pair, *since);
        }
    }

    pub(super) fn cool_one(&mut self, pair: IpPair, since: BootTime) {
        match self.find(pair) {
            Some((known, offset)) => known.allocator.cool_since(offset, since),
            None => {
                self.cooling.insert(pair, since);
            }
        }
    }

    fn find(&mut self, pair: IpPair) -> Option<(&mut KnownBlock, u32)> {
        let mut known = self.blocks.values_mut().filter_map(|block| block.known.as_mut());
        known.find_map(|known| known.offset_of(pair).map(|offset| (known, offset)))
    }
}
