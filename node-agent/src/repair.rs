//! Keeps the node's network as it should be, and tells what it found: compares at start, on the kernel's hints and every minute. The
//! comparing and mending is the kernel crate's.

mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_datapath::{DesiredState, DriftKind, NetnsPresence};
use bobbin_ipam::AttachmentKey;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::direct::Direct;
use crate::ledger::{Attachment, Phase};
use crate::resync::Resynced;
use report::{Report, Told, lost_interface};

/// Without news from the kernel.
const INTERVAL: Duration = Duration::from_mins(1);
/// News are gathered so long, for one change rarely comes alone.
const GATHER: Duration = Duration::from_millis(500);
/// A pass takes milliseconds; one that hangs is given up and tried again.
const DEADLINE: Duration = Duration::from_secs(30);

/// What one pass leaves to the next.
#[derive(Default)]
struct Passes {
    told: Told,
    /// Without direct routing: the routes of an earlier run with it were removed.
    without_direct_routes: bool,
}

/// Repairs, for ever.
pub async fn run(agent: Arc<Agent>, direct: Option<Direct>, resynced: watch::Receiver<Resynced>) {
    let mut changes = agent.network.changes();
    let mut passes = Passes::default();
    let mut routes = direct.as_ref().map(Direct::changed);
    let beat = agent.progress.register("repair", DEADLINE * 4);
    loop {
        beat.made();
        changes.mark_unchanged();
        let lacking = !resynced.borrow().blocks;
        pass(&agent, direct.as_ref(), lacking, &mut passes).await;
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            news = changes.changed() => {
                if news.is_err() {
                    tokio::time::sleep(INTERVAL).await;
                }
                tokio::time::sleep(GATHER).await;
            }
            () = changed(routes.as_mut()) => tokio::time::sleep(GATHER).await,
        }
    }
}

async fn changed(routes: Option<&mut tokio::sync::watch::Receiver<u64>>) {
    let over = match routes {
        Some(routes) => routes.changed().await.is_err(),
        None => true,
    };
    if over {
        std::future::pending::<()>().await;
    }
}

/// One comparison. Until the API server has told which blocks are the node's, the journal's list may lack some.
async fn pass(agent: &Agent, direct: Option<&Direct>, blocks_incomplete: bool, passes: &mut Passes) {
    let found = {
        let Some((_fence, blocks)) = agent.exported.hold().await else { return };
        let attachments = live(agent);
        let ipv4 = blocks.iter().any(|block| block.ipv4.is_some())
            || attachments.values().any(|each| each.pair.ipv4.is_some());
        let ipv6 = blocks.iter().any(|block| block.ipv6.is_some())
            || attachments.values().any(|each| each.pair.ipv6.is_some());
        let desired = DesiredState {
            ipv4,
            ipv6,
            blocks,
            blocks_incomplete,
            pods: attachments.values().map(|attachment| agent.wiring(&attachment.key, attachment.pair)).collect(),
            direct: match direct {
                Some(direct) => direct.direct_routes(),
                None => (!passes.without_direct_routes).then(Vec::new),
            },
        };
        tokio::time::timeout(DEADLINE, agent.network.reconcile(&desired)).await
    };
    match found {
        Ok(Ok(findings)) => {
            let removed = findings.iter().all(|found| found.kind != DriftKind::NotRepairable);
            passes.without_direct_routes |= direct.is_none() && removed;
            let report = Report::of(findings, &mut passes.told);
            tell(agent, &report);
            let broken = broken(agent, &report).await;
            tell_broken(agent, &broken, &mut passes.told);
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the node's network could not be compared; the next pass tries again");
        }
        Err(_) => {
            tracing::error!("comparing the node's network took longer than {DEADLINE:?}; the next pass tries again");
        }
    }
}

fn live(agent: &Agent) -> HashMap<AttachmentKey, Attachment> {
    let attachments = agent.ledger.attachments().into_iter();
    attachments.filter(|each| each.phase == Phase::Live).map(|each| (each.key.clone(), each)).collect()
}

fn tell(agent: &Agent, report: &Report) {
    for what in &report.applied {
        tracing::debug!("changed the node's network: {what}");
    }
    for what in &report.repaired {
        agent.metrics.repairs.inc();
        tracing::warn!("repaired the node's network: {what}");
    }
    for what in &report.not_repairable {
        tracing::warn!("the node's network is not as it should be: {what}");
        agent.events.node_warning("NetworkNotRepaired", what);
    }
    if let Some(sentence) = report.repaired_sentence() {
        agent.events.node_note("NetworkRepaired", &sentence);
    }
}

/// The live attachments without a link whose namespace is not known to be gone. A pod that ended while the kernel was looked at misses
/// nothing, and one whose namespace is gone is freed soon.
async fn broken(agent: &Agent, report: &Report) -> Vec<Attachment> {
    let mut live = live(agent);
    let missing: Vec<Attachment> = report.link_missing.iter().filter_map(|key| live.remove(key)).collect();
    if missing.is_empty() {
        return missing;
    }
    let netns = |each: &Attachment| each.links.as_ref().and_then(|links| links.netns);
    let asked = missing.iter().map(|each| (each.key.clone(), netns(each))).collect();
    let presence = match tokio::time::timeout(DEADLINE, agent.network.presence(asked)).await {
        Ok(Ok(presence)) => presence,
        Ok(Err(error)) => {
            tracing::warn!(%error, "whether pods without a link have a network namespace is not known");
            HashMap::new()
        }
        Err(_) => HashMap::new(),
    };
    let is_broken = |each: &Attachment| match presence.get(&each.key) {
        Some(NetnsPresence::Broken | NetnsPresence::Unknown) | None => true,
        Some(NetnsPresence::NetnsGone | NetnsPresence::Linked | NetnsPresence::Moved) => false,
    };
    missing.into_iter().filter(is_broken).collect()
}

fn tell_broken(agent: &Agent, broken: &[Attachment], told: &mut Told) {
    agent.metrics.broken.set(i64::try_from(broken.len()).unwrap_or(i64::MAX));
    for attachment in told.newly_broken(broken) {
        let sentence = lost_interface(attachment, &agent.network.host_if(&attachment.key));
        tracing::warn!(key = %attachment.key, "{sentence}");
        agent.events.pod_warning(&attachment.pod, "InterfaceLost", &sentence);
    }
}
