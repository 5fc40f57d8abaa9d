//! What the ledger's lock guards, and the changes to it. Pure: time comes in as a value.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bobbin_crds::MAX_COOLDOWN;
use bobbin_ipam::block::BlockName;
use bobbin_ipam::demand::BlockUse;
use bobbin_ipam::reserved::Reserved;
use bobbin_ipam::{AttachmentKey, BootTime, IpPair};

use super::block::{Block, BlockView, Body, HeldBlock, SavedBlock};
use super::block_state::{BlockEvent, BlockState, Next};
use super::{AssignError, Attachment, ConflictingRecord, CoolingAddress, Permit, Phase, Request, Taken};
use crate::freshness::Proof;

/// Blocks and attachments. Invariant: an address of a block is held in its allocator exactly if an attachment has it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blocks: BTreeMap<String, Block>,
    pub(super) attachments: HashMap<AttachmentKey, Attachment>,
    /// Cool-downs of addresses whose block is not in the ledger.
    cooling_addresses: HashMap<IpPair, BootTime>,
    /// What each pool reserves, as last said.
    reserved: HashMap<String, Reserved>,
    /// Addresses that another attachment has a record of, whether their block is here or not.
    passed_over: HashMap<IpPair, ConflictingRecord>,
    /// The next block's epoch: one that comes back never has the epoch it had.
    epochs: u64,
}

/// What is known of a block when it comes in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The block, as the API server has it.
    pub held: HeldBlock,
    /// Since when its addresses rest; `None`: they have rested enough.
    pub cooling_since: Option<BootTime>,
    /// What its pool reserves, as far as the caller knows.
    pub reserved: Reserved,
    /// What the API server's word on it is worth.
    pub proof: Proof,
    /// Now.
    pub now: BootTime,
    /// It does not serve before this moment.
    pub not_before: BootTime,
    /// Addresses of it may have been in use before it came in.
    pub was_used: bool,
}

impl State {
    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1 << 32;
        self.epochs
    }

    /// A claim on a block is about to be sent. False: the block is here already, in whatever state.
    pub(super) fn begin_claim(&mut self, name: &str, pool: &str) -> bool {
        if self.blocks.contains_key(name) {
            return false;
        }
        let epoch = self.next_epoch();
        self.blocks.insert(name.to_owned(), Block::claiming(pool, epoch));
        true
    }

    /// The API server confirmed a claim, or says that a block which is not here is ours. False: the block is here in another state.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> bool {
        let Arrival { held, cooling_since, reserved, proof, now, not_before, was_used } = arrival;
        let claimed = match self.blocks.get(&held.name).map(Block::state) {
            None => BlockState::Claiming { doubted: false },
            Some(claiming @ BlockState::Claiming { .. }) => claiming,
            Some(_) => return false,
        };
        let Next::State(state) = claimed.on(BlockEvent::ClaimConfirmed { now, not_before }) else { return false };
        // What was read of the pool later counts more than what the caller may have missed.
        let reserved = self.reserved.get(&held.pool).cloned().unwrap_or(reserved);
        let body = Body { was_used, ..Body::new(held, &reserved, cooling_since, proof, now) };
        self.insert(body, state);
        true
    }

    /// A block of the checkpoint comes back with a restart of the agent.
    pub(super) fn restore_block(&mut self, arrival: Arrival, state: BlockState) {
        let Arrival { held, cooling_since, reserved, proof, now, was_used, .. } = arrival;
        self.insert(Body { was_used, ..Body::new(held, &reserved, cooling_since, proof, now) }, state);
    }

    fn insert(&mut self, mut body: Body, state: BlockState) {
        for attachment in self.attachments.values_mut() {
            if let Some(offset) = body.offset_of(attachment.pair) {
                body.hold(offset);
                attachment.block.clone_from(&body.held.name);
                attachment.pool.clone_from(&body.held.pool);
            }
        }
        let epoch = self.next_epoch();
        self.blocks.insert(body.held.name.clone(), Block::known(body, state, epoch));
        for (pair, since) in std::mem::take(&mut self.cooling_addresses) {
            self.cool_one(pair, since);
        }
        for (pair, record) in self.passed_over.clone() {
            self.pass_over(pair, record);
        }
    }

    /// Applies an event to a block. Whether anything changed by it.
    pub(super) fn on(&mut self, name: &str, event: BlockEvent) -> bool {
        let Some(block) = self.blocks.get_mut(name) else { return false };
        if let Some(changed) = block.on(event) {
            return changed;
        }
        let forgotten = self.blocks.remove(name).and_then(|block| block.body);
        // A block that was given back says itself since when its addresses rest.
        if event != BlockEvent::Released {
            self.keep_cooling(forgotten);
        }
        true
    }

    /// Keeps the cool-downs of a forgotten block, in case it comes back.
    fn keep_cooling(&mut self, forgotten: Option<Body>) {
        let Some(body) = forgotten else { return };
        for (offset, since) in body.allocator.cooling_addresses() {
            self.cooling_addresses.extend(body.held.range.pair(offset).map(|pair| (pair, since)));
        }
        let newest = self.cooling_addresses.values().max().copied().unwrap_or_default();
        self.cooling_addresses.retain(|_, since| newest.since(*since) < MAX_COOLDOWN);
    }

    /// [`BlockEvent::Release`], if no address of the block is in use.
    pub(super) fn begin_release(&mut self, name: &str) -> bool {
        self.residents(name) == Some(0) && self.on(name, BlockEvent::Release)
    }

    /// [`BlockEvent::FoundOurs`] and [`BlockEvent::Release`] in one, if no address of the block is in use.
    pub(super) fn release_doubted(&mut self, name: &str, now: BootTime) -> bool {
        let Some(BlockState::Doubted { doubts, .. }) = self.blocks.get(name).map(Block::state) else { return false };
        self.residents(name) == Some(0)
            && self.on(name, BlockEvent::FoundOurs { now, doubts })
            && self.on(name, BlockEvent::Release)
    }

    /// [`BlockEvent::FoundVacant`], if no address of the block is in use.
    pub(super) fn found_vacant(&mut self, name: &str) -> bool {
        self.residents(name) == Some(0) && self.on(name, BlockEvent::FoundVacant)
    }

    /// Another node has the block: it is lost, or forgotten if nobody here has an address of it.
    pub(super) fn found_others(&mut self, name: &str) -> Vec<Attachment> {
        self.on(name, BlockEvent::FoundOthers);
        let residents = self.residents_of(name);
        if residents.is_empty() {
            self.on(name, BlockEvent::Vacated);
        }
        residents
    }

    fn residents(&self, name: &str) -> Option<u32> {
        self.blocks.get(name).map(Block::residents)
    }

    /// The attachments that have addresses of a block.
    pub(super) fn residents_of(&self, name: &str) -> Vec<Attachment> {
        let Some(body) = self.blocks.get(name).and_then(|block| block.body.as_ref()) else { return Vec::new() };
        self.attachments.values().filter(|attachment| body.offset_of(attachment.pair).is_some()).cloned().collect()
    }

    /// Takes the first cancellable release of these blocks back. Whether there was one.
    pub(super) fn cancel_release(&mut self, names: &[String], now: BootTime, not_before: BootTime) -> bool {
        names.iter().any(|name| self.on(name, BlockEvent::ReleaseCancelled { now, not_before }))
    }

    pub(super) fn doubt_all(&mut self) -> bool {
        let names: Vec<String> = self.blocks.keys().cloned().collect();
        let mut changed = false;
        for name in names {
            changed |= self.on(&name, BlockEvent::Doubt);
        }
        changed
    }

    /// Takes in what the API server last said of a block that is ours. Whether anything but the resourceVersion changed.
    pub(super) fn refresh(&mut self, name: &str, uid: &str, resource_version: &str, deleting: bool) -> bool {
        let Some(body) = self.blocks.get_mut(name).and_then(|block| block.body.as_mut()) else { return false };
        let changed = body.held.deleting != deleting || body.held.uid != uid;
        uid.clone_into(&mut body.held.uid);
        resource_version.clone_into(&mut body.held.resource_version);
        body.held.deleting = deleting;
        changed
    }

    /// The API server says that the block is ours. A block whose records were not seen yet needs that first.
    pub(super) fn prove(&mut self, name: &str, proof: Proof, records_seen: bool) {
        if let Some(body) = self.blocks.get_mut(name).and_then(|block| block.body.as_mut())
            && (records_seen || body.proof != Proof::RecordsUnseen)
        {
            body.proof = proof;
        }
    }

    /// Whether anything changed by it.
    pub(super) fn set_reserved(&mut self, pool: &str, reserved: &Reserved) -> bool {
        if self.reserved.get(pool) == Some(reserved) {
            return false;
        }
        self.reserved.insert(pool.to_owned(), reserved.clone());
        for body in self.blocks.values_mut().filter_map(|block| block.body.as_mut()) {
            if body.held.pool == pool {
                body.allocator.set_reserved(reserved);
            }
        }
        true
    }

    pub(super) fn assign(&mut self, request: &Request<'_>, now: BootTime, early: bool) -> Result<Taken, AssignError> {
        if let Some(known) = self.attachments.get(request.key) {
            return Err(AssignError::AlreadyHeld(Box::new(known.clone())));
        }
        let serving: Vec<(&String, &Block, &Body)> = self
            .blocks
            .iter()
            .filter(|(_, block)| block.pool == request.pool && block.state().assignable())
            .filter_map(|(name, block)| Some((name, block, block.body.as_ref()?)))
            .collect();
        if serving.is_empty() {
            return Err(AssignError::NoBlock);
        }
        let found = if early {
            let longest = |(name, block, body): &(&String, &Block, &Body)| {
                body.allocator.longest_cooling().map(|(offset, since)| (since, (*name).clone(), block.epoch(), offset))
            };
            serving.iter().filter_map(longest).min().map(|(_, name, epoch, offset)| (name, epoch, offset))
        } else {
            serving
                .iter()
                .filter_map(|(name, block, body)| {
                    let offset = body.allocator.pick_cooled(now, request.cooldown)?;
                    let fullest = (body.allocator.held(), std::cmp::Reverse(body.held.index));
                    Some((fullest, ((*name).clone(), block.epoch(), offset)))
                })
                .max_by_key(|(fullest, _)| *fullest)
                .map(|(_, found)| found)
        };
        let blocks = serving.len();
        let (name, epoch, offset) = found.ok_or(AssignError::NoneCooled { blocks })?;
        let body = self.blocks.get_mut(&name).and_then(|block| block.body.as_mut()).ok_or(AssignError::NoBlock)?;
        let pair = body.held.range.pair(offset).ok_or(AssignError::NoneCooled { blocks })?;
        body.hold(offset);
        let permit = Permit { block: name.clone(), epoch, proof: body.proof };
        let attachment = request.attachment(pair, name);
        self.attachments.insert(request.key.clone(), attachment.clone());
        Ok(Taken { attachment, permit })
    }

    /// Whether the block that an ADD took its address from was never in doubt since.
    pub(super) fn permit_is_valid(&self, permit: &Permit) -> bool {
        self.blocks.get(&permit.block).is_some_and(|block| block.epoch() == permit.epoch)
    }

    pub(super) fn restore(&mut self, mut attachment: Attachment) {
        if let Some((body, offset)) = self.find(attachment.pair) {
            body.hold(offset);
            attachment.block.clone_from(&body.held.name);
            attachment.pool.clone_from(&body.held.pool);
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
                Some((body, offset)) => {
                    body.free(offset, now);
                    let name = body.held.name.clone();
                    if self.residents(&name) == Some(0) {
                        // Means something to a lost block only.
                        self.on(&name, BlockEvent::Vacated);
                    }
                }
                None => self.cool_one(attachment.pair, now),
            }
        }
        Some(attachment)
    }

    /// Does not hand an address out while another attachment has a record of it. Whether that is news.
    pub(super) fn pass_over(&mut self, pair: IpPair, record: ConflictingRecord) -> bool {
        let news = self.passed_over.get(&pair) != Some(&record);
        self.passed_over.insert(pair, record);
        if let Some((body, offset)) = self.find(pair) {
            body.allocator.exclude(offset);
        }
        news
    }

    /// The record is gone: the address may go out again, after the cool-down.
    pub(super) fn end_pass_over(&mut self, pair: IpPair, now: BootTime) -> bool {
        let known = self.passed_over.remove(&pair).is_some();
        if known && let Some((body, offset)) = self.find(pair) {
            body.allocator.include(offset);
            body.allocator.cool_since(offset, now);
        }
        known
    }

    pub(super) fn passed_over(&self) -> Vec<ConflictingRecord> {
        self.passed_over.values().cloned().collect()
    }

    pub(super) fn views(&self) -> Vec<BlockView> {
        self.blocks.values().filter_map(Block::view).collect()
    }

    /// The blocks as a checkpoint has them once these transitions are made.
    pub(super) fn saved_with(&self, promotions: &[(String, BlockEvent)]) -> Vec<SavedBlock> {
        let state = |view: &BlockView| {
            let mut of_this = promotions.iter().filter(|(name, _)| *name == view.held.name);
            of_this.try_fold(view.state, |state, (_, event)| match state.on(*event) {
                Next::State(next) => Some(next),
                Next::Unchanged => Some(state),
                Next::Forgotten => None,
            })
        };
        let saved = |view: BlockView| {
            let records_seen = view.proof != Proof::RecordsUnseen;
            Some(SavedBlock { state: state(&view)?, block: view.held, records_seen })
        };
        self.views().into_iter().filter_map(saved).collect()
    }

    pub(super) fn pool_use(&self, pool: &str, cooldown: Duration, now: BootTime) -> Vec<BlockUse> {
        let serving = self.blocks.values().filter(|block| block.pool == pool && block.state().assignable());
        serving
            .filter_map(|block| block.body.as_ref())
            .map(|body| BlockUse {
                name: BlockName(body.held.name.clone()),
                held: body.allocator.held(),
                cooling: body.allocator.cooling(now, cooldown),
                usable: body.allocator.usable(),
                empty_for: body.empty_since.map(|since| now.since(since)),
                was_used: body.was_used,
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> Vec<CoolingAddress> {
        let bodies = self.blocks.values().filter_map(|block| block.body.as_ref());
        let in_blocks = bodies.flat_map(|body| {
            let pair_at = |(offset, since)| body.held.range.pair(offset).map(|pair| CoolingAddress { pair, since });
            body.allocator.cooling_addresses().filter_map(pair_at)
        });
        let elsewhere =
            self.cooling_addresses.iter().map(|(pair, since)| CoolingAddress { pair: *pair, since: *since });
        in_blocks.chain(elsewhere).collect()
    }

    pub(super) fn rest(&mut self, resting: &[CoolingAddress]) {
        for CoolingAddress { pair, since } in resting {
            self.cool_one(*pair, *since);
        }
    }

    fn cool_one(&mut self, pair: IpPair, since: BootTime) {
        match self.find(pair) {
            Some((body, offset)) => body.allocator.cool_since(offset, since),
            None => {
                self.cooling_addresses.insert(pair, since);
            }
        }
    }

    fn find(&mut self, pair: IpPair) -> Option<(&mut Body, u32)> {
        let mut bodies = self.blocks.values_mut().filter_map(|block| block.body.as_mut());
        bodies.find_map(|body| body.offset_of(pair).map(|offset| (body, offset)))
    }
}

impl Request<'_> {
    fn attachment(&self, pair: IpPair, block: String) -> Attachment {
        Attachment {
            key: self.key.clone(),
            pair,
            block,
            pool: self.pool.to_owned(),
            pod: self.pod.clone(),
            pod_seen: self.pod_seen,
            created_at: self.at,
            boot_id: self.boot_id.to_owned(),
            assignment_uid: None,
            phase: Phase::Adding,
            netns: self.netns.map(ToOwned::to_owned),
            network: self.network.map(ToOwned::to_owned),
            links: None,
        }
    }
}
