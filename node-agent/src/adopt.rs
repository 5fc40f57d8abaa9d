//! Keeps the ledger true to the API server: own blocks (lost ones, those of an earlier Node of this name, those that came while the
//! agent was away) and own records (missing ones, those of another boot, those whose attachment is gone). A background task of run; it
//! assigns nothing, and frees a record only by the attachment's own identity.

mod blocks;
mod doubts;
mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bobbin_addressing::{BlockRange, TwoLooks};
use bobbin_apiserver::{Clients, ReadError, backoff};
use bobbin_crds::IPAssignment;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::claim::Claims;
use crate::event::Events;
use crate::ledger::Ledger;
use crate::record::Recorder;
use crate::watch::{BlockNews, ClusterView};
use doubts::Doubts;
use records::{Finding, Seen, judge};

/// How long one list may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Records per page of a list.
const PAGE: u32 = 500;

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
        let mut doubts = Doubts::default();
        let mut node = self.view.changed();
        // Records of an earlier boot go first: what is queued for deletion is deleted before its address is recorded again.
        let (next, mut uid) = self.first(&mut looks, &mut doubts, &progress).await;
        let mut due = Instant::now() + next;
        let mut failures = 0;
        loop {
            let settle = doubts.due();
            tokio::select! {
                some = news.recv() => match some {
                    Some(news) => self.hear(news, &mut doubts).await,
                    None => return,
                },
                () = tokio::time::sleep_until(settle.unwrap_or(due)), if settle.is_some() => self.settle(&mut doubts).await,
                changed = node.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = self.view.node().map(|node| node.uid);
                    if now != uid {
                        uid = now;
                        // Whose the blocks of the earlier Node are is to be read before anything goes out of them.
                        self.ledger.blocks().iter().for_each(|block| self.ledger.suspend(&block.name));
                        doubts.all();
                        self.settle(&mut doubts).await;
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
    /// next, and the UID of the Node that the blocks were compared for.
    async fn first(
        &self,
        looks: &mut TwoLooks<Seen>,
        doubts: &mut Doubts,
        progress: &watch::Sender<Adopted>,
    ) -> (Duration, Option<String>) {
        for attempt in 0.. {
            if let Some(node) = self.view.node() {
                let records = self.compare_records(looks, progress).await;
                let blocks = if records.is_ok() { self.claims.own_blocks().await } else { Ok(BTreeMap::new()) };
                match (records, blocks) {
                    (Ok(next), Ok(blocks)) => {
                        self.compare_blocks(&blocks, &node, doubts).await;
                        progress.send_modify(|adopted| adopted.blocks = true);
                        return (next, Some(node.uid));
                    }
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::debug!(%error, "own records and blocks could not be listed yet");
                    }
                }
            }
            tokio::time::sleep(backoff(attempt, Duration::from_millis(50), Duration::from_secs(3))).await;
        }
        (self.relist_interval, None)
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
