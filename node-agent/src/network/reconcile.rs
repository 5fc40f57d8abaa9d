//! Reconciles the node's network when the agent starts, when the kernel reports a change, and every minute. The datapath crate compares and
//! repairs the network.

mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_datapath::{DesiredState, DriftKind, NetnsPresence};
use bobbin_ipam::AttachmentKey;
use bobbin_messages::event::agent as event;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::network::direct_routes::DirectRoutes;
use crate::network::export::ExportedBlocks;
use crate::resync::Resynced;
use crate::state::{Attachment, AttachmentPhase};
use report::{Report, Reported, lost_interface};

/// How often the agent compares the network with the desired state if the kernel reports no change.
const RECONCILE_INTERVAL: Duration = Duration::from_mins(1);
/// How long the agent waits after a notification before it compares the network, because further changes usually follow soon.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// The agent abandons a reconcile pass that takes longer than this, and later starts another pass. A pass usually takes milliseconds.
const PASS_TIMEOUT: Duration = Duration::from_secs(30);

/// The results of one reconcile pass that the next pass needs.
#[derive(Default)]
struct PassState {
    reported: Reported,
    /// True if the agent runs without direct routing and has removed the direct routes of an earlier run. Later passes then do not look for
    /// direct routes.
    without_direct_routes: bool,
}

/// Reconciles the network until the agent stops.
pub async fn run(
    agent: Arc<Agent>,
    exported: ExportedBlocks,
    direct: Option<DirectRoutes>,
    resynced: watch::Receiver<Resynced>,
) {
    let mut changes = agent.network.changes();
    let mut state = PassState::default();
    let mut routes = direct.as_ref().map(DirectRoutes::changed);
    let beat = agent.watchdog.register("network reconcile", PASS_TIMEOUT * 4);
    loop {
        beat.beat();
        changes.mark_unchanged();
        let blocks_incomplete = !resynced.borrow().blocks;
        pass(&agent, &exported, direct.as_ref(), blocks_incomplete, &mut state).await;
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = tokio::time::sleep(RECONCILE_INTERVAL) => {}
            news = changes.changed() => {
                if news.is_err() {
                    tokio::time::sleep(RECONCILE_INTERVAL).await;
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
            () = changed(routes.as_mut()) => tokio::time::sleep(DEBOUNCE).await,
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

/// Makes one reconcile pass. If `blocks_incomplete` is true, the agent has not listed the node's blocks yet and may know only some of them.
/// The pass then removes no block's route.
async fn pass(
    agent: &Agent,
    exported: &ExportedBlocks,
    direct: Option<&DirectRoutes>,
    blocks_incomplete: bool,
    state: &mut PassState,
) {
    let found = {
        let Some((_lock, blocks)) = exported.hold().await else { return };
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
                Some(direct) => direct.wanted(),
                None => (!state.without_direct_routes).then(Vec::new),
            },
        };
        tokio::time::timeout(PASS_TIMEOUT, agent.network.reconcile(&desired)).await
    };
    agent.metrics.datapath_pass_ended(matches!(found, Ok(Ok(_))));
    match found {
        Ok(Ok(findings)) => {
            let removed = findings.iter().all(|found| found.kind != DriftKind::NotRepairable);
            state.without_direct_routes |= direct.is_none() && removed;
            let report = Report::of(findings, &mut state.reported);
            report_findings(agent, &report);
            agent.recent.reconciled(&report.repaired, &state.reported.open(), Timestamp::now());
            let broken = broken(agent, &report).await;
            report_broken(agent, &broken, &mut state.reported);
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the agent could not compare the node's network with the desired state; it will try again");
        }
        Err(_) => {
            tracing::error!(
                "the comparison of the node's network with the desired state took longer than {PASS_TIMEOUT:?}; the agent will try again"
            );
        }
    }
}

fn live(agent: &Agent) -> HashMap<AttachmentKey, Attachment> {
    let attachments = agent.node_state.attachments().into_iter();
    attachments.filter(|each| each.phase == AttachmentPhase::Live).map(|each| (each.key.clone(), each)).collect()
}

fn report_findings(agent: &Agent, report: &Report) {
    for what in &report.applied {
        tracing::debug!("the agent changed the node's network: {what}");
    }
    for what in &report.repaired {
        tracing::warn!("the agent repaired the node's network: {what}");
    }
    for subject in &report.repaired_subjects {
        agent.metrics.datapath_repaired(*subject);
    }
    for what in &report.not_repairable {
        let sentence = format!(
            "the agent could not repair the node's network: {what}. The agent tries again every minute. If the problem stays, find out which program changes or blocks the named object, and reconfigure that program"
        );
        tracing::warn!("{sentence}");
        agent.events.on_node(&event::NETWORK_NOT_REPAIRED, &sentence);
    }
    if let Some(sentence) = report.repaired_sentence() {
        agent.events.on_node(&event::NETWORK_REPAIRED, &sentence);
    }
}

/// The live attachments that have no link although their network namespace exists, or may exist.
///
/// Leaves out attachments that ended during the pass, and attachments whose network namespace is gone. The stale-attachment check removes
/// attachments without a network namespace.
async fn broken(agent: &Agent, report: &Report) -> Vec<Attachment> {
    let mut live = live(agent);
    let missing: Vec<Attachment> = report.link_missing.iter().filter_map(|key| live.remove(key)).collect();
    if missing.is_empty() {
        return missing;
    }
    let netns = |each: &Attachment| each.links.as_ref().and_then(|links| links.netns);
    let asked = missing.iter().map(|each| (each.key.clone(), netns(each))).collect();
    let presence = match tokio::time::timeout(PASS_TIMEOUT, agent.network.presence(asked)).await {
        Ok(Ok(presence)) => presence,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the agent can't find out whether pods without a link still have a network namespace");
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

fn report_broken(agent: &Agent, broken: &[Attachment], reported: &mut Reported) {
    agent.recent.set_broken(broken.iter().map(|each| each.key.clone()), Timestamp::now());
    agent.metrics.broken_attachments.set(i64::try_from(broken.len()).unwrap_or(i64::MAX));
    for attachment in reported.newly_broken(broken) {
        let sentence = lost_interface(attachment, &agent.network.host_if(&attachment.key));
        tracing::warn!(key = %attachment.key, "{sentence}");
        agent.events.on_pod(&attachment.pod, &event::INTERFACE_LOST, &sentence);
    }
}
