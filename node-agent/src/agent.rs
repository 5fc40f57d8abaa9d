//! What the verbs and the background tasks share, and the steps that several of them take: wiring, keeping and ending an attachment, and
//! reporting a duplicate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bobbin_crds::DEFAULT_COOLDOWN;
use bobbin_datapath::{KernelError, Network, Wiring, boot_time};
use bobbin_ipam::{AttachmentKey, IpPair};
use bobbin_observability::Progress;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::attachment_lock::Turns;
use crate::event::Events;
use crate::exported::Exported;
use crate::freshness::{Freshness, Trouble};
use crate::journal::Journal;
use crate::ledger::{Attachment, ConflictingRecord, Ledger, Phase};
use crate::metrics::Metrics;
use crate::record::{Recorder, record_name};
use crate::run_dir::RunDir;
use crate::stock::Stock;
use crate::verb::gc::Unlisted;
use crate::waiting_pods::WaitingPods;
use crate::watch::ClusterView;

/// The agent of one node.
pub struct Agent {
    /// The settings.
    pub args: Args,
    /// What outlives the agent lies there; locked.
    pub run_dir: Arc<RunDir>,
    /// Which loops make progress.
    pub progress: Progress,
    /// This boot.
    pub boot_id: String,
    /// Blocks, addresses, attachments.
    pub ledger: Arc<Ledger>,
    /// What outlives the agent.
    pub journal: Journal,
    /// The kernel.
    pub network: Network,
    /// The routes of the node's blocks.
    pub exported: Exported,
    /// The cluster, as the watches show it.
    pub view: ClusterView,
    /// The records at the API server.
    pub recorder: Recorder,
    /// The node's blocks.
    pub stock: Stock,
    /// Events on pods and nodes.
    pub events: Events,
    /// Counts and latencies.
    pub metrics: Metrics,
    /// What GC calls have not listed.
    pub unlisted: Unlisted,
    /// The pods that wait for an address.
    pub waiting: WaitingPods,
    /// Whether forwarding, rule and anti-spoofing are in place, by family.
    pub prepared: [AtomicBool; 2],
    /// One verb at a time for one attachment.
    pub turns: Turns,
    /// How fresh the API server's word is.
    pub freshness: Arc<Freshness>,
    /// Wakes the resync.
    pub resync: Arc<Notify>,
    /// Own blocks were read since the agent started, or that took too long.
    pub first_read: watch::Receiver<bool>,
    /// Own blocks were read since the agent started.
    pub blocks_read: watch::Receiver<bool>,
    /// The agent is to stop: held ADDs end.
    pub stop: CancellationToken,
}

/// The address could not be taken out of use, so it stays held; the sweep tries again.
#[derive(Debug, thiserror::Error)]
#[error("address {pair} of {key} could not be taken out of use, so it stays held: {source}")]
pub struct EndError {
    /// The attachment.
    pub key: AttachmentKey,
    /// Its address.
    pub pair: IpPair,
    /// Why.
    pub source: KernelError,
}

impl Agent {
    /// How an attachment is, or should be, wired.
    pub fn wiring(&self, key: &AttachmentKey, pair: IpPair) -> Wiring {
        let node = self.view.node();
        Wiring {
            key: key.clone(),
            pair,
            node_ipv4: node.as_ref().and_then(|node| node.ipv4).filter(|_| pair.ipv4.is_some()),
            node_ipv6: node.as_ref().and_then(|node| node.ipv6).filter(|_| pair.ipv6.is_some()),
        }
    }

    /// Forwarding, rule and anti-spoofing for the families of a pair: done once, checked by repair ever after.
    pub async fn prepare(&self, pair: IpPair) -> Result<(), KernelError> {
        let [ipv4, ipv6] = &self.prepared;
        let (need4, need6) = (pair.ipv4.is_some(), pair.ipv6.is_some());
        if (!need4 || ipv4.load(Ordering::Acquire)) && (!need6 || ipv6.load(Ordering::Acquire)) {
            return Ok(());
        }
        self.network.set_up(need4, need6).await?;
        ipv4.fetch_or(need4, Ordering::Release);
        ipv6.fetch_or(need6, Ordering::Release);
        Ok(())
    }

    /// Waits until own blocks were read since the agent started, at most as long as an agent that starts may take for it. Returns how long
    /// it waited in vain.
    pub async fn await_first_read(&self) -> Duration {
        let begun = Instant::now();
        // An error says that the agent stops.
        let _ = self.first_read.clone().wait_for(|read| *read).await;
        if *self.blocks_read.borrow() { Duration::ZERO } else { begun.elapsed() }
    }

    /// Changes an attachment in ledger and journal. `None`: it ended meanwhile.
    pub fn update(&self, key: &AttachmentKey, change: impl FnOnce(&mut Attachment)) -> Option<Attachment> {
        let attachment = self.ledger.update(key, change)?;
        if let Err(error) = self.journal.keep(&attachment) {
            tracing::error!(%key, %error, "an attachment could not be written down; a restart finds it by its link");
        }
        Some(attachment)
    }

    /// Ends an attachment: out of use in the kernel, then its record, then the journal, then the ledger. A crash between any two leaves
    /// the address held, and the sweep or the runtime's next DEL goes on from there. `false`: the checkpoint
    /// could not be removed, so the address stays held; the runtime is not told.
    pub async fn end(&self, attachment: &Attachment) -> Result<bool, EndError> {
        let (key, pair) = (&attachment.key, attachment.pair);
        self.ledger.update(key, |attachment| attachment.phase = Phase::Deleting);
        self.network.detach(key, pair).await.map_err(|source| EndError { key: key.clone(), pair, source })?;
        let uid = self.ledger.attachment(key).and_then(|attachment| attachment.assignment_uid);
        // Durable when the call returns; nobody waits for the API server.
        drop(self.recorder.delete_pair(pair, key, uid));
        let now = boot_time();
        if let Err(error) = self.journal.forget(key, pair, now) {
            // As long as a file says that the address is in use nobody else gets it, or a restart would find two who have it.
            tracing::error!(%key, %error, "an ended attachment is still written down, so its address stays held; the sweep tries again");
            return Ok(false);
        }
        self.ledger.release(key, now);
        Ok(true)
    }

    /// Another attachment has a record of an address that this node handed out: the address is passed over until that record is gone, and no
    /// block is proven until it is read again. Whether that is news.
    pub fn found_duplicate(&self, pair: IpPair, by: &str) -> bool {
        let Some(name) = record_name(pair) else { return false };
        let record = ConflictingRecord { pair, name, by: by.to_owned() };
        if let Err(error) = self.journal.keep_passed_over(&record) {
            tracing::error!(%error, "an address that is passed over could not be written down");
        }
        let news = self.ledger.pass_over(record);
        if news {
            self.metrics.duplicates.inc();
            self.freshness.trouble(Trouble::Duplicate);
        }
        news
    }

    /// Tells everybody what becomes of a duplicate.
    pub fn report_duplicate(&self, attachment: &Attachment, by: &str, outcome: DuplicateOutcome) {
        let Attachment { key, pair, .. } = attachment;
        let name = record_name(*pair).unwrap_or_default();
        let who = attachment.who();
        let sentence = match outcome {
            DuplicateOutcome::NotUsed => format!(
                "address {pair}, meant for {who}, is recorded for {by}: the pod gets another address, and this node does not hand {pair} out while that record exists; see who wrote it: kubectl get ipassignment {name} -o yaml"
            ),
            DuplicateOutcome::Ended => format!(
                "address {pair} of {who} is recorded for {by}, whose node has the block {}: the pod has lost its network; delete the pod, so that it gets another address",
                attachment.block
            ),
            DuplicateOutcome::Void => format!(
                "address {pair} of {who} is recorded for {by}, whose node does not have the block {}: the pod keeps the address, and that record is void; the operator deletes it once its pod is gone",
                attachment.block
            ),
            DuplicateOutcome::SameNode => format!(
                "address {pair} is held by two running attachments of this node, {who} and {by}: delete one of them, so that it gets another address"
            ),
        };
        tracing::error!(%pair, %key, by, "duplicate address: {sentence}");
        self.events.node_warning("DuplicateAddress", &sentence);
        if outcome == DuplicateOutcome::Ended {
            self.events.pod_warning(&attachment.pod, "DuplicateAddress", &sentence);
        }
    }

    /// How long a freed address of a pool cools.
    pub fn cooldown(&self, pool: &str) -> Duration {
        self.view.pool(pool).map_or(DEFAULT_COOLDOWN, |pool| pool.spec.cooldown())
    }
}

/// What becomes of an attachment whose address is recorded for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateOutcome {
    /// Its ADD was not answered yet: it gets another address.
    NotUsed,
    /// The other node has the block: the attachment ended.
    Ended,
    /// The other record is void.
    Void,
    /// The record is of another attachment of this node that lives: both keep the address.
    SameNode,
}
