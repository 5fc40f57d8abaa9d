//! Keeps the node's network as it should be: compares at start, when the kernel tells of a change, and every minute. What should be there
//! comes from the ledger; the comparing and mending is the kernel crate's. Run by run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bobbin_addressing::AttachmentKey;
use bobbin_kernel::Desired;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::direct::Direct;
use crate::ledger::Phase;
use crate::resync::Resynced;

/// Without news from the kernel.
const INTERVAL: Duration = Duration::from_mins(1);
/// News are gathered so long: our own changes are most of them.
const GATHER: Duration = Duration::from_millis(500);
/// A pass takes milliseconds; one that hangs is given up and tried again.
const DEADLINE: Duration = Duration::from_secs(30);

/// Repairs, for ever.
pub async fn run(agent: Arc<Agent>, direct: Option<Direct>, resynced: watch::Receiver<Resynced>) {
    let mut changes = agent.network.changes();
    let mut told = HashSet::new();
    let mut routes = direct.as_ref().map(Direct::changed);
    let beat = agent.progress.register("repair", DEADLINE * 4);
    loop {
        beat.made();
        changes.mark_unchanged();
        let lacking = !resynced.borrow().blocks;
        pass(&agent, direct.as_ref(), lacking, &mut told).await;
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            news = changes.changed() => {
                if news.is_err() {
                    tokio::time::sleep(INTERVAL).await;
                }
                tokio::time::sleep(GATHER).await;
            }
            () = changed(routes.as_mut()) => {}
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

/// One comparison. Until the API server has told which blocks are the node's, the journal's list may lack some. `told` are the things that could not be put right and that are known already.
async fn pass(agent: &Agent, direct: Option<&Direct>, blocks_may_lack: bool, told: &mut HashSet<String>) {
    let Some((_fence, blocks)) = agent.exported.hold().await else { return };
    let attachments = agent.ledger.attachments();
    let ipv4 =
        blocks.iter().any(|block| block.ipv4.is_some()) || attachments.iter().any(|each| each.pair.ipv4.is_some());
    let ipv6 =
        blocks.iter().any(|block| block.ipv6.is_some()) || attachments.iter().any(|each| each.pair.ipv6.is_some());
    let desired = Desired {
        ipv4,
        ipv6,
        blocks,
        blocks_may_lack,
        pods: attachments
            .iter()
            .filter(|attachment| attachment.phase == Phase::Live)
            .map(|attachment| agent.wiring(&attachment.key, attachment.pair))
            .collect(),
        direct: match direct {
            None => Some(Vec::new()),
            Some(direct) => direct.direct_routes(),
        },
    };
    match tokio::time::timeout(DEADLINE, agent.network.converge(&desired)).await {
        Ok(Ok(mut repairs)) => {
            // A pod that was deleted while the kernel was looked at misses nothing.
            let ended = |key: &AttachmentKey| agent.ledger.attachment(key).is_none_or(|now| now.phase != Phase::Live);
            let ended: Vec<String> =
                desired.pods.iter().map(|pod| &pod.key).filter(|key| ended(key)).map(ToString::to_string).collect();
            repairs.retain(|repair| repair.repaired || !ended.iter().any(|key| repair.what.contains(key)));
            let open: HashSet<String> =
                repairs.iter().filter(|repair| !repair.repaired).map(|repair| repair.what.clone()).collect();
            repairs.retain(|repair| repair.repaired || !told.contains(&repair.what));
            *told = open;
            for repair in &repairs {
                agent.metrics.repairs.inc();
                tracing::warn!("repaired the node's network: {repair}");
            }
            if !repairs.is_empty() {
                let what: Vec<String> = repairs.iter().take(5).map(ToString::to_string).collect();
                agent.events.node_note(
                    "NetworkRepaired",
                    &format!("{} of the node's network put right: {}", repairs.len(), what.join("; ")),
                );
            }
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the node's network could not be compared; the next pass tries again");
        }
        Err(_) => {
            tracing::error!("comparing the node's network took longer than {DEADLINE:?}; the next pass tries again");
        }
    }
}
