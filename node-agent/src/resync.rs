//! The one routine that compares everything the node owns at the API server with what should be there: records, blocks, addresses in the
//! blocks, addresses passed over. It runs at start, on news and every quarter of an hour, and would be right with any one of these alone.

mod blocks;
mod passed_over;
mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError, backoff};
use bobbin_crds::AddressPool;
use bobbin_datapath::boot_time;
use bobbin_observability::Watchdog;
use kube::api::ListParams;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::blocks::api::BlockApi;
use crate::claim::Claims;
use crate::event::Events;
use crate::freshness::{Freshness, Kind};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::pod_gone::PodGone;
use crate::record::Recorder;
use crate::times::Times;
use crate::watch::{ClusterView, NodeFacts};
use records::SeenRecord;

/// News that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A pass makes a bounded number of calls with deadlines of seconds; one that takes so long hangs.
const PASS_DEADLINE: Duration = Duration::from_mins(5);
/// The first pause after a pass that failed, and the longest.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(3)];

/// What the routine needs.
pub struct Resync {
    /// The clients.
    pub clients: Clients,
    /// What is known of the cluster's objects.
    pub view: ClusterView,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Takes in blocks that the ledger lacks.
    pub claims: Claims,
    /// The records.
    pub recorder: Recorder,
    /// How fresh the API server's word is.
    pub freshness: Arc<Freshness>,
    /// The checkpoint.
    pub journal: Journal,
    /// Events on the node.
    pub events: Events,
    /// This boot.
    pub boot_id: String,
    /// How often it runs without news (`--relist-interval`).
    pub interval: Duration,
    /// Waits.
    pub times: Times,
    /// Where it says that it makes progress.
    pub beats: Watchdog,
    /// Wakes it.
    pub hint: Arc<Notify>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resynced {
    /// Own blocks were compared with the API server's since the agent started.
    pub blocks: bool,
}

/// What is remembered between passes.
struct Memory {
    /// Records without an attachment, and whether their pods are gone.
    pods_gone: PodGone<SeenRecord>,
    records_due: Option<Instant>,
    passed_over_due: Option<Instant>,
    /// The signs of trouble that the last comparison of records has seen.
    troubles: u64,
}

impl Resync {
    /// Runs for ever; `progress` tells others how far it is.
    pub async fn run(self, progress: watch::Sender<Resynced>) {
        let pods_gone = PodGone::new(self.view.node_name(), self.times.pod_gone_apart());
        let mut memory = Memory { pods_gone, records_due: None, passed_over_due: None, troubles: 0 };
        let mut troubles = self.freshness.troubles();
        let beat = self.beats.register("resync", PASS_DEADLINE);
        let mut failures = 0;
        loop {
            let trouble = *troubles.borrow_and_update();
            let next = match self.pass(&mut memory, trouble, &progress).await {
                Ok(next) => {
                    failures = 0;
                    next
                }
                Err(error) => {
                    if let ReadError::Unreachable(why) = &error {
                        self.freshness.outcome(Some(why), boot_time());
                    }
                    tracing::debug!(%error, "a resync did not end; trying again");
                    failures += 1;
                    backoff(failures - 1, RETRY_PAUSES[0], RETRY_PAUSES[1])
                }
            };
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(next) => {}
                    // While the API server is away, news must not make the pauses shorter.
                    () = self.hint.notified(), if failures == 0 => tokio::time::sleep(DEBOUNCE).await,
                    // The sender is ours as long as this runs.
                    _ = troubles.changed(), if failures == 0 => tokio::time::sleep(DEBOUNCE).await,
                }
            };
            beat.while_idle(pause).await;
        }
    }

    /// One comparison. Returns when the next is due without news.
    async fn pass(
        &self,
        memory: &mut Memory,
        trouble: u64,
        progress: &watch::Sender<Resynced>,
    ) -> Result<Duration, ReadError> {
        let now = Instant::now();
        // Once to one and a half times the interval, so that the nodes of a cluster spread out.
        let interval = self.times.resync(self.interval);
        let interval = interval / 2 + bobbin_api_client::backoff::jittered(interval);
        self.compare_node().await?;
        if memory.records_due.is_some_and(|due| due <= now) {
            self.compare_pools().await?;
        }
        // Records first: after an outage, who claims a block later must find the records of its residents.
        if memory.records_due.is_none_or(|due| due <= now) || memory.troubles != trouble {
            let blocks_known = progress.borrow().blocks;
            let again = self.compare_records(memory, blocks_known).await?;
            memory.troubles = trouble;
            memory.records_due = Some(now + again.unwrap_or(interval).min(interval));
        }
        let listed = self.compare_blocks().await?;
        self.view.set_own_blocks_known();
        progress.send_modify(|done| done.blocks = true);
        self.see_records_of_new_blocks(listed).await?;
        if memory.passed_over_due.is_none_or(|due| due <= now) {
            self.recheck_passed_over().await;
            memory.passed_over_due = Some(now + self.times.passed_over_recheck());
        }
        let mut next = memory.records_due.map_or(interval, |due| due.saturating_duration_since(Instant::now()));
        if !self.ledger.passed_over().is_empty() {
            next = next.min(self.times.passed_over_recheck());
        }
        Ok(next.max(DEBOUNCE))
    }

    fn block_api(&self) -> BlockApi {
        BlockApi::new(&self.clients)
    }

    /// The ranges of the blocks that count as this node's.
    fn own_ranges(&self) -> BTreeMap<String, bobbin_ipam::BlockRange> {
        let ours = self.ledger.blocks().into_iter().filter(|block| block.state.counts_as_ours());
        ours.map(|block| (block.held.name, block.held.range)).collect()
    }

    /// The pools, by a consistent list: a watch that lost an event would else show a draining pool as open for ever.
    async fn compare_pools(&self) -> Result<(), ReadError> {
        let api: kube::Api<Lenient<AddressPool>> = kube::Api::all(self.clients.requests.clone());
        let list = bobbin_api_client::read(crate::blocks::api::DEADLINE, api.list(&ListParams::default())).await?;
        self.view.saw_pools(list.items);
        Ok(())
    }

    /// The own Node, by a consistent read.
    async fn compare_node(&self) -> Result<(), ReadError> {
        // The watch tells as much, unless it was silent for long.
        let silence = self.freshness.silence(boot_time())[Kind::Node as usize];
        if self.view.node().is_some() && silence.is_some_and(|silence| silence < self.times.silence()) {
            return Ok(());
        }
        let api: kube::Api<Lenient<PartialNode>> = kube::Api::all(self.clients.requests.clone());
        let (start, reports) = (self.freshness.begin_read(boot_time()), self.view.node_reports());
        let node = match bobbin_api_client::read(crate::blocks::api::DEADLINE, api.get(self.view.node_name())).await {
            Ok(node) => match NodeFacts::of(&node) {
                Ok(node) => Some(node),
                // It is there, as it was.
                Err(_) => return if self.view.node().is_some() { Ok(()) } else { Err(ReadError::NotFound) },
            },
            Err(ReadError::NotFound) => None,
            Err(error) => return Err(error),
        };
        self.freshness.answered(boot_time());
        self.freshness.read(Kind::Node, start);
        let absent = node.is_none();
        crate::own_watch::node_seen(&self.view, &self.ledger, &self.freshness, &Notify::new(), node, Some(reports));
        if absent && self.view.node().is_none() { Err(ReadError::NotFound) } else { Ok(()) }
    }
}
