//! What the ledger's lock guards, and the changes to it. Pure: time comes in as a value.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bobbin_addressing::block::BlockName;
use bobbin_addressing::occupancy::Occupancy;
use bobbin_addressing::reserved::Reserved;
use bobbin_addressing::stock::BlockUse;
use bobbin_addressing::{AttachmentKey, BootTime, Pair};

use super::{AssignError, Attachment, HeldBlock, Phase, Request, Resting, StillUsed};

/// Blocks and attachments. Invariant: an address of a block is held in its occupancy exactly if an attachment has it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blocks: BTreeMap<String, Block>,
    pub(super) attachments: HashMap<AttachmentKey, Attachment>,
    /// Rests of addresses whose block is not, or not yet, here.
    rests: HashMap<Pair, BootTime>,
    /// What each pool reserves, as last said.
    reserved: HashMap<String, Reserved>,
    /// Addresses that are not to be handed out from here, whether their block is there or not.
    retired: HashSet<Pair>,
}

/// A block and its addresses.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) held: HeldBlock,
    pub(super) occupancy: Occupancy,
    /// On its way back: nothing is assigned from it.
    pub(super) releasing: bool,
    /// Its owner is in doubt: nothing is assigned from it until it is known again.
    pub(super) suspended: bool,
    empty_since: Option<BootTime>,
    was_used: bool,
}

impl Block {
    fn offset_of(&self, pair: Pair) -> Option<u32> {
        pair.addresses().find_map(|address| self.held.range.offset_of(address))
    }

    fn hold(&mut self, offset: u32) {
        self.occupancy.hold(offset);
        self.empty_since = None;
        self.was_used = true;
    }

    fn free(&mut self, offset: u32, now: BootTime) {
        self.occupancy.free(offset, now);
        if self.occupancy.is_empty() {
            self.empty_since = Some(now);
        }
    }
}

impl State {
    pub(super) fn add_block(
        &mut self,
        held: HeldBlock,
        resting_since: Option<BootTime>,
        reserved: &Reserved,
        now: BootTime,
    ) {
        // What stock has read of the pool counts more than what the caller may have missed.
        let known = self.reserved.get(&held.pool).cloned();
        let reserved = known.as_ref().unwrap_or(reserved);
        if let Some(known) = self.blocks.get_mut(&held.name).filter(|known| known.held.range == held.range) {
            known.occupancy.set_reserved(reserved);
            known.held = held;
            return;
        }
        let occupancy = Occupancy::new(held.range, reserved, resting_since);
        let mut block =
            Block { held, occupancy, releasing: false, suspended: false, empty_since: Some(now), was_used: false };
        for attachment in self.attachments.values_mut() {
            if let Some(offset) = block.offset_of(attachment.pair) {
                block.hold(offset);
                attachment.block.clone_from(&block.held.name);
                attachment.pool.clone_from(&block.held.pool);
            }
        }
        self.blocks.insert(block.held.name.clone(), block);
        for (pair, since) in std::mem::take(&mut self.rests) {
            self.rest_one(pair, since);
        }
        for pair in self.retired.clone() {
            self.retire(pair);
        }
    }

    /// Whether anything changed by it.
    pub(super) fn set_reserved(&mut self, pool: &str, reserved: &Reserved) -> bool {
        if self.reserved.get(pool) == Some(reserved) {
            return false;
        }
        self.reserved.insert(pool.to_owned(), reserved.clone());
        for block in self.blocks.values_mut().filter(|block| block.held.pool == pool) {
            block.occupancy.set_reserved(reserved);
        }
        true
    }

    pub(super) fn assign(
        &mut self,
        request: &Request<'_>,
        now: BootTime,
        early: bool,
    ) -> Result<Attachment, AssignError> {
        if let Some(known) = self.attachments.get(request.key) {
            return Err(AssignError::AlreadyHeld(Box::new(known.clone())));
        }
        let usable = |block: &&Block| block.held.pool == request.pool && !block.releasing && !block.suspended;
        let blocks = self.blocks.values().filter(usable).count();
        if blocks == 0 {
            return Err(AssignError::NoBlock);
        }
        let found = if early {
            self.blocks
                .values()
                .filter(usable)
                .filter_map(|block| block.occupancy.longest_resting().map(|(offset, since)| (since, block, offset)))
                .min_by_key(|(since, _, _)| *since)
                .map(|(_, block, offset)| (block.held.name.clone(), offset))
        } else {
            self.blocks
                .values()
                .filter(usable)
                .filter_map(|block| block.occupancy.pick_rested(now, request.cooldown).map(|offset| (block, offset)))
                .max_by_key(|(block, _)| (block.occupancy.held(), std::cmp::Reverse(block.held.index)))
                .map(|(block, offset)| (block.held.name.clone(), offset))
        };
        let (name, offset) = found.ok_or(AssignError::NoneRested { blocks })?;
        let block = self.blocks.get_mut(&name).ok_or(AssignError::NoBlock)?;
        let pair = block.held.range.pair(offset).ok_or(AssignError::NoneRested { blocks })?;
        block.hold(offset);
        let attachment = Attachment {
            key: request.key.clone(),
            pair,
            block: name,
            pool: request.pool.to_owned(),
            pod: request.pod.clone(),
            pod_seen: request.pod_seen,
            created_at: request.at,
            boot_id: request.boot_id.to_owned(),
            assignment_uid: None,
            phase: Phase::Adding,
            netns: request.netns.map(ToOwned::to_owned),
            network: request.network.map(ToOwned::to_owned),
            links: None,
        };
        self.attachments.insert(request.key.clone(), attachment.clone());
        Ok(attachment)
    }

    pub(super) fn restore(&mut self, mut attachment: Attachment) {
        if let Some((block, offset)) = self.find(attachment.pair) {
            block.hold(offset);
            attachment.block.clone_from(&block.held.name);
            attachment.pool.clone_from(&block.held.pool);
        }
        self.attachments.insert(attachment.key.clone(), attachment);
    }

    pub(super) fn release(&mut self, key: &AttachmentKey, now: BootTime) -> Option<Attachment> {
        let attachment = self.attachments.remove(key)?;
        // Two attachments with one address: only what an earlier fault left can be so. The address stays held while one is left.
        let shared = self
            .attachments
            .values()
            .any(|other| other.pair.addresses().any(|address| attachment.pair.addresses().any(|mine| mine == address)));
        if !shared {
            match self.find(attachment.pair) {
                Some((block, offset)) => block.free(offset, now),
                None => self.rest_one(attachment.pair, now),
            }
        }
        Some(attachment)
    }

    pub(super) fn retire(&mut self, pair: Pair) {
        self.retired.insert(pair);
        if let Some((block, offset)) = self.find(pair) {
            block.occupancy.retire(offset);
        }
    }

    pub(super) fn begin_release(&mut self, name: &str) -> Result<HeldBlock, StillUsed> {
        let block = self.blocks.get_mut(name).filter(|block| !block.releasing).ok_or(StillUsed::NotHeld)?;
        match block.occupancy.held() {
            0 => {
                block.releasing = true;
                Ok(block.held.clone())
            }
            held => Err(StillUsed::Held(held)),
        }
    }

    pub(super) fn end_release(&mut self, name: &str, gave_up: bool) {
        if gave_up {
            self.blocks.remove(name);
        } else if let Some(block) = self.blocks.get_mut(name) {
            block.releasing = false;
        }
    }

    /// Whether anything changed by it.
    pub(super) fn set_suspended(&mut self, name: &str, suspended: bool) -> bool {
        let block = self.blocks.get_mut(name).filter(|block| block.suspended != suspended);
        block.map(|block| block.suspended = suspended).is_some()
    }

    pub(super) fn lose_block(&mut self, name: &str) -> Vec<Attachment> {
        let Some(block) = self.blocks.remove(name) else { return Vec::new() };
        self.attachments.values().filter(|attachment| block.offset_of(attachment.pair).is_some()).cloned().collect()
    }

    pub(super) fn pool_use(&self, pool: &str, cooldown: Duration, now: BootTime) -> Vec<BlockUse> {
        self.blocks
            .values()
            .filter(|block| block.held.pool == pool && !block.releasing)
            .map(|block| BlockUse {
                name: BlockName(block.held.name.clone()),
                held: block.occupancy.held(),
                cooling: block.occupancy.cooling(now, cooldown),
                usable: block.occupancy.usable(),
                empty_for: block.empty_since.map(|since| now.since(since)),
                was_used: block.was_used,
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> Vec<Resting> {
        let in_blocks = self.blocks.values().flat_map(|block| {
            let pair_at = |(offset, since)| block.held.range.pair(offset).map(|pair| Resting { pair, since });
            block.occupancy.resting().filter_map(pair_at)
        });
        let elsewhere = self.rests.iter().map(|(pair, since)| Resting { pair: *pair, since: *since });
        in_blocks.chain(elsewhere).collect()
    }

    pub(super) fn rest(&mut self, resting: &[Resting]) {
        for Resting { pair, since } in resting {
            self.rest_one(*pair, *since);
        }
    }

    fn rest_one(&mut self, pair: Pair, since: BootTime) {
        match self.find(pair) {
            Some((block, offset)) => block.occupancy.rest_since(offset, since),
            None => {
                self.rests.insert(pair, since);
            }
        }
    }

    fn find(&mut self, pair: Pair) -> Option<(&mut Block, u32)> {
        self.blocks.values_mut().find_map(|block| block.offset_of(pair).map(|offset| (block, offset)))
    }
}
