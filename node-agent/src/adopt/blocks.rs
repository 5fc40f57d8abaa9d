//! Own blocks: what the watch and fresh reads say of them, brought into the ledger. Called by adopt. News only say what to read: a block
//! is taken in or lost by a read of its own, and while that can't be had, nothing is assigned from it.

use std::collections::{BTreeMap, HashMap};

use bobbin_crds::AddressBlock;
use kube::ResourceExt;

use super::Adopt;
use super::doubts::Doubts;
use crate::claim::{ClaimError, Standing, standing};
use crate::ledger::HeldBlock;
use crate::watch::{BlockNews, NodeFacts};

impl Adopt {
    /// Acts on a block that seems lost at once; what else does not fit is read in a moment, for a claim may be about to enter it.
    pub(super) async fn hear(&self, news: BlockNews, doubts: &mut Doubts) {
        let Some(node) = self.view.node() else { return doubts.all() };
        match news {
            BlockNews::All(blocks) => {
                let listed: HashMap<String, AddressBlock> =
                    blocks.into_iter().map(|block| (block.name_any(), block)).collect();
                for held in self.ledger.blocks() {
                    if !listed.contains_key(&held.name) {
                        self.look_again(&held.name, &node, doubts).await;
                    }
                }
                for block in listed.values() {
                    self.hear_of(block, &node, doubts).await;
                }
            }
            BlockNews::Left(name) => self.look_again(&name, &node, doubts).await,
            BlockNews::Is(block) => self.hear_of(&block, &node, doubts).await,
        }
    }

    async fn hear_of(&self, block: &AddressBlock, node: &NodeFacts, doubts: &mut Doubts) {
        let name = block.name_any();
        match (standing(block, node), self.ledger.block(&name)) {
            (Standing::Ours, Some(_)) => self.refresh(block),
            (_, Some(_)) => self.look_again(&name, node, doubts).await,
            (Standing::Ours | Standing::EarlierSelf, None) => doubts.one(&name, &block.spec.pool_name),
            (Standing::Free | Standing::Others, None) => {}
        }
    }

    /// Reads what is in doubt; what still is stays so, and is read again later.
    pub(super) async fn settle(&self, doubts: &mut Doubts) {
        let (names, all) = doubts.take();
        let node = self.view.node();
        let blocks = if all { Some(self.claims.own_blocks().await) } else { None };
        match (node, blocks) {
            (None, _) => doubts.again(names, all),
            (_, Some(Err(error))) => {
                tracing::debug!(%error, "own blocks could not be listed; they are listed again");
                doubts.again(names, true);
            }
            (Some(node), Some(Ok(blocks))) => self.compare_blocks(&blocks, &node, doubts).await,
            (Some(node), None) => {
                for (name, pool) in names {
                    if self.ledger.block(&name).is_none() {
                        self.take_in(&name, &pool, &node, doubts).await;
                    } else if self.ledger.is_suspended(&name) {
                        self.look_again(&name, &node, doubts).await;
                    }
                }
            }
        }
        doubts.settled();
    }

    /// What a fresh list says is ours and the ledger lacks is taken in, what it does not say is ours is read, and lost if it is not.
    pub(super) async fn compare_blocks(
        &self,
        blocks: &BTreeMap<String, AddressBlock>,
        node: &NodeFacts,
        doubts: &mut Doubts,
    ) {
        for held in self.ledger.blocks() {
            match blocks.get(&held.name) {
                Some(block) if standing(block, node) == Standing::Ours => {
                    self.refresh(block);
                    self.ledger.resume(&held.name);
                }
                _ => self.look_again(&held.name, node, doubts).await,
            }
        }
        for (name, block) in blocks {
            if self.ledger.block(name).is_none() {
                self.take_in(name, &block.spec.pool_name, node, doubts).await;
            }
        }
    }

    fn refresh(&self, block: &AddressBlock) {
        let uid = block.metadata.uid.as_deref().unwrap_or_default();
        let version = block.metadata.resource_version.as_deref().unwrap_or_default();
        self.ledger.refresh_block(&block.name_any(), uid, version);
    }

    /// Reads a block of the ledger that seems lost, and believes that. Nothing is assigned from it until then.
    async fn look_again(&self, name: &str, node: &NodeFacts, doubts: &mut Doubts) {
        let Some(held) = self.ledger.block(name) else { return };
        self.ledger.suspend(name);
        if self.claims.going_back().contains(name) {
            // A give-back that fails leaves it here: then it is read.
            return doubts.one(name, &held.pool);
        }
        match self.claims.renew(name, node).await {
            Ok(Some(block)) => {
                self.refresh(&block);
                self.ledger.resume(name);
            }
            Ok(None) if self.claims.going_back().contains(name) => doubts.one(name, &held.pool),
            Ok(None) => self.lose(name).await,
            Err(error) => {
                tracing::warn!(block = name, %error, "a block that seems lost could not be read; nothing is assigned from it until it is");
                doubts.one(name, &held.pool);
            }
        }
    }

    /// Takes in a block that the ledger lacks, if a read of it says that it is ours.
    async fn take_in(&self, name: &str, pool: &str, node: &NodeFacts, doubts: &mut Doubts) {
        match self.claims.adopt(name, pool, node).await {
            Ok(Some(_)) => tracing::info!(block = name, "took in a block that the API server says is this node's"),
            Ok(None) => {}
            Err(error) => {
                if !matches!(error, ClaimError::Busy(_)) {
                    tracing::error!(block = name, %error, "a block of this node could not be taken in; it is tried again");
                }
                doubts.one(name, pool);
            }
        }
    }

    /// The block is not ours: no assignment, no route; the pods that have addresses of it run on, out of the pool's way.
    async fn lose(&self, name: &str) {
        let Some(held) = self.ledger.block(name) else { return };
        let stranded = self.ledger.lose_block(name);
        if let Err(error) = self.claims.exports().withdraw(held.range).await {
            tracing::error!(block = name, %error, "the route of a lost block is still exported; the next repair tries again");
        }
        let sentence = lost_sentence(&held, self.view.node_name(), stranded.len());
        tracing::error!(block = name, pods = stranded.len(), "{sentence}");
        self.events.node_warning("BlockLost", &sentence);
    }
}

fn lost_sentence(block: &HeldBlock, node: &str, pods: usize) -> String {
    format!(
        "node {node} lost block {} ({}) of pool {}: the API server says that it is not this node's; its route is withdrawn, {pods} pods still have addresses of it: delete them, so that they get others",
        block.name, block.range, block.pool
    )
}
