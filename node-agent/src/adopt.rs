//! Keeps the ledger true to the API server: own blocks (lost ones, those of an earlier Node of this name, those that came while the
//! agent was away) and own records (missing ones, those of another boot, those whose attachment is gone). A background task of run; it
//! assigns nothing, and frees a record only by the attachment's own identity.

mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bobbin_addressing::{BlockRange, TwoLooks};
use bobbin_apiserver::{Clients, ReadError, backoff};
use bobbin_crds::{AddressBlock, IPAssignment};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::claim::{Claims, Standing, standing};
use crate::event::Events;
use crate::ledger::{HeldBlock, Ledger};
use crate::record::Recorder;
use crate::watch::{BlockNews, ClusterView, NodeFacts};
use records::{Finding, Seen, judge};

/// How long one list may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Records per page of a list.
const PAGE: u32 = 500;
/// A block that the watch shows and the ledger lacks may be one that is just claimed or given back: it is looked at again after this.
const SETTLE: Duration = Duration::from_secs(3);

/// What the task needs.
pub struct Adopt {
    /// The clients.
    pub clients: Clients,
    /// The view; its news of blocks are this task's.
    pub view: ClusterView,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Claims, for taking blocks in and renewing them.
    pub claims: Claims,
    /// The records.
    pub recorder: Recorder,
    /// Events on the node.
    pub events: Events,
    /// This boot.
    pub boot_id: String,
    /// How often own records are listed (`--relist-interval`).
    pub relist_interval: Duration,
    /// How far apart the two looks at a record without an attachment are, at least.
    pub looks_apart: Duration,
}

/// How far the task has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Own blocks were compared with the API server's since the agent started.
    pub blocks: bool,
    /// Own records were.
    pub records: bool,
    /// Passes that the breaker stopped.
    pub tripped: u64,
}

impl Adopt {
    /// Runs for ever; `progress` tells others how far it is. `news` is the view's [`ClusterView::block_news`].
    pub async fn run(self, mut news: mpsc::UnboundedReceiver<BlockNews>, progress: watch::Sender<Adopted>) {
        let mut looks = TwoLooks::new();
        // Records of an earlier boot go first: what is queued for deletion is deleted before its address is recorded again.
        let mut due = Instant::now() + self.first(&mut looks, &progress).await;
        let mut failures = 0;
        let mut settle: Option<Instant> = None;
        let mut node = self.view.changed();
        let mut uid = self.view.node().map(|node| node.uid);
        loop {
            tokio::select! {
                some = news.recv() => match some {
                    Some(news) => {
                        if self.hear(news).await {
                            settle.get_or_insert_with(|| Instant::now() + SETTLE);
                        }
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(settle.unwrap_or(due)), if settle.is_some() => {
                    settle = None;
                    self.recheck().await;
                }
                changed = node.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = self.view.node().map(|node| node.uid);
                    if now != uid {
                        uid = now;
                        self.recheck().await;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    let next = match self.compare_records(&mut looks, &progress).await {
                        Ok(again) => {
                            failures = 0;
                            again
                        }
                        Err(error) => {
                            tracing::debug!(%error, "own records could not be listed");
                            failures += 1;
                            backoff(failures, Duration::from_millis(500), Duration::from_secs(15))
                        }
                    };
                    due = Instant::now() + next;
                }
            }
        }
    }

    /// Compares own records and own blocks with the API server's, until that has succeeded once. Returns when to look at the records
    /// next.
    async fn first(&self, looks: &mut TwoLooks<Seen>, progress: &watch::Sender<Adopted>) -> Duration {
        for attempt in 0.. {
            if let Some(node) = self.view.node() {
                let records = self.compare_records(looks, progress).await;
                let blocks = if records.is_ok() { self.claims.own_blocks().await } else { Ok(BTreeMap::new()) };
                match (records, blocks) {
                    (Ok(next), Ok(blocks)) => {
                        self.compare_blocks(&blocks, &node).await;
                        progress.send_modify(|adopted| adopted.blocks = true);
                        return next;
                    }
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::debug!(%error, "own records and blocks could not be listed yet");
                    }
                }
            }
            tokio::time::sleep(backoff(attempt, Duration::from_millis(50), Duration::from_secs(3))).await;
        }
        self.relist_interval
    }

    /// Lists own blocks afresh and compares.
    async fn recheck(&self) {
        let Some(node) = self.view.node() else { return };
        match self.claims.own_blocks().await {
            Ok(blocks) => self.compare_blocks(&blocks, &node).await,
            Err(error) => tracing::debug!(%error, "own blocks could not be listed; the watch lists them when it can"),
        }
    }

    /// Acts on a lost block at once. True: something is there that the ledger lacks, perhaps because a claim is under way; look again
    /// in a moment.
    async fn hear(&self, news: BlockNews) -> bool {
        let Some(node) = self.view.node() else { return true };
        let going_back = self.claims.going_back();
        match news {
            // A list of the watch may be older than what the ledger knows: it only says what to look at afresh.
            BlockNews::All(blocks) => {
                let listed: HashSet<String> = blocks.iter().map(ResourceExt::name_any).collect();
                let held: HashSet<String> = self.ledger.blocks().into_iter().map(|block| block.name).collect();
                blocks.iter().any(|block| standing(block, &node) != Standing::Ours)
                    || held.symmetric_difference(&listed).any(|name| !going_back.contains(name))
            }
            BlockNews::Left(name) => {
                if self.ledger.block(&name).is_some() && !going_back.contains(&name) {
                    self.look_again(&name, &node).await;
                }
                false
            }
            BlockNews::Is(block) => {
                let name = block.name_any();
                match (standing(&block, &node), self.ledger.block(&name)) {
                    (_, Some(_)) if going_back.contains(&name) => false,
                    (Standing::Ours, Some(_)) => {
                        self.refresh(&block);
                        false
                    }
                    (_, Some(_)) => {
                        self.look_again(&name, &node).await;
                        false
                    }
                    (Standing::EarlierSelf, None) => true,
                    (Standing::Ours, None) => !self.claims.is_claiming(&block.spec.pool_name),
                    (Standing::Free | Standing::Others, None) => false,
                }
            }
        }
    }

    fn refresh(&self, block: &AddressBlock) {
        let uid = block.metadata.uid.as_deref().unwrap_or_default();
        let version = block.metadata.resource_version.as_deref().unwrap_or_default();
        self.ledger.refresh_block(&block.name_any(), uid, version);
    }

    /// Reads a block that seems lost, and believes that.
    async fn look_again(&self, name: &str, node: &NodeFacts) {
        match self.claims.renew(name, node).await {
            Ok(Some(block)) => self.refresh(&block),
            Ok(None) => self.lose(name).await,
            Err(error) => {
                tracing::warn!(block = name, %error, "a block that seems lost could not be read; it is read again with the next news of it");
            }
        }
    }

    /// What the API server says is ours and the ledger lacks is taken in, what it says is not is lost.
    async fn compare_blocks(&self, blocks: &BTreeMap<String, AddressBlock>, node: &NodeFacts) {
        let releasing = self.claims.going_back();
        for held in self.ledger.blocks() {
            if !releasing.contains(&held.name) && !blocks.contains_key(&held.name) {
                self.look_again(&held.name, node).await;
            }
        }
        for block in blocks.values() {
            let name = block.name_any();
            let known = self.ledger.block(&name).is_some();
            // What a claim under way has just got, that claim exports and enters itself.
            if releasing.contains(&name) || (!known && self.claims.is_claiming(&block.spec.pool_name)) {
                continue;
            }
            let ours = match standing(block, node) {
                Standing::Ours => Ok(Some(block.clone())),
                Standing::EarlierSelf => self.claims.renew(&name, node).await,
                Standing::Free | Standing::Others => Ok(None),
            };
            match ours {
                Ok(Some(block)) if known => self.refresh(&block),
                Ok(Some(block)) => self.take_in(&block).await,
                Ok(None) => self.lose(&name).await,
                Err(error) => {
                    tracing::warn!(block = name, %error, "a block of an earlier Node of this name could not be renewed");
                }
            }
        }
    }

    async fn take_in(&self, block: &AddressBlock) {
        let name = block.name_any();
        // Of the pool only the cool-down and the reserved addresses count, and a pool that is gone has neither.
        let pool = self.view.pool(&block.spec.pool_name);
        match self.claims.take_in(block, pool.as_deref()).await {
            Ok(_) => tracing::info!(block = name, "took in a block that the API server says is this node's"),
            Err(error) => tracing::error!(block = name, %error, "a block of this node could not be taken in"),
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

    /// Lists own records and does what follows. Returns when to look next.
    async fn compare_records(
        &self,
        looks: &mut TwoLooks<Seen>,
        progress: &watch::Sender<Adopted>,
    ) -> Result<Duration, ReadError> {
        // Only who lived before the list, and still lives, can lack a record: the others' are on their way.
        let before: HashMap<_, _> =
            self.ledger.attachments().into_iter().map(|attachment| (attachment.key, attachment.created_at)).collect();
        let records = self.own_records().await?;
        // The records first, what lives second: an ADD in between has no record in the list and is left alone.
        let living = self.ledger.attachments();
        let blocks: BTreeMap<String, BlockRange> =
            self.ledger.blocks().into_iter().map(|block| (block.name, block.range)).collect();
        let mut suspects = HashSet::new();
        for finding in judge(&records, &living, &blocks, &self.boot_id) {
            match finding {
                Finding::OtherBoot(seen) => {
                    tracing::info!(record = seen.name, key = %seen.key, "released an address of an earlier boot");
                    drop(self.recorder.delete(&seen.name, &seen.key, Some(seen.uid)));
                }
                Finding::NobodyLives(seen) if !self.recorder.busy(&seen.name) => {
                    suspects.insert(seen);
                }
                Finding::NobodyLives(_) => {}
                Finding::Unrecorded(attachment) => {
                    let old = before.get(&attachment.key) == Some(&attachment.created_at);
                    if old && !self.recorder.busy_with(attachment.pair) {
                        tracing::info!(key = %attachment.key, pair = %attachment.pair, "an attachment has no record; it is made again");
                        drop(self.recorder.create_again(&attachment));
                    }
                }
                // Which blocks are ours is known only once they were compared.
                Finding::Void { .. } if !progress.borrow().blocks => {}
                Finding::Void { name, block } => {
                    let sentence = format!(
                        "record {name} says that its address is of block {block}, which node {} does not own: it is void; the operator removes it",
                        self.view.node_name()
                    );
                    tracing::warn!(record = name, block, "{sentence}");
                    self.events.node_warning("VoidRecord", &sentence);
                }
            }
        }
        let verdict = looks.look(&suspects, records.len(), bobbin_kernel::boot_time(), self.looks_apart);
        if let Some(breaker) = &verdict.tripped {
            progress.send_modify(|adopted| adopted.tripped += 1);
            let sentence = format!(
                "{} of {} records of node {} have no attachment that lives: that is too many to free by itself; see whether the agent's state under its run directory was lost, and delete the records that are wrong",
                breaker.would_free,
                breaker.population,
                self.view.node_name()
            );
            tracing::error!("{sentence}");
            self.events.node_warning("RecordsStray", &sentence);
        }
        for seen in verdict.free {
            // The last look: an ADD may have taken the address meanwhile.
            if self.ledger.attachment(&seen.key).is_none() {
                tracing::info!(record = seen.name, key = %seen.key, "released an address that no attachment has");
                drop(self.recorder.delete(&seen.name, &seen.key, Some(seen.uid)));
            }
        }
        progress.send_modify(|adopted| adopted.records = true);
        let again = !suspects.is_empty() && verdict.tripped.is_none();
        Ok(if again { self.looks_apart.min(self.relist_interval) } else { self.relist_interval })
    }

    async fn own_records(&self) -> Result<Vec<IPAssignment>, ReadError> {
        let api: Api<IPAssignment> = Api::all(self.clients.requests.clone());
        let mut page = ListParams::default().fields(&format!("spec.nodeName={}", self.view.node_name())).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let list = bobbin_apiserver::read(DEADLINE, api.list(&page)).await?;
            all.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }
}

fn lost_sentence(block: &HeldBlock, node: &str, pods: usize) -> String {
    format!(
        "node {node} lost block {} ({}) of pool {}: the API server says that it is not this node's; its route is withdrawn, {pods} pods still have addresses of it: delete them, so that they get others",
        block.name, block.range, block.pool
    )
}
