//! Builds the agent: opens the kernel's network and the checkpoint, restores the node's state, and creates the agent's parts.

use std::sync::Arc;

use anyhow::Context;
use bobbin_api_client::Clients;
use bobbin_datapath::{Network, Settings, boot_time};
use bobbin_ipam::BootTime;
use bobbin_messages::event::agent as event;
use bobbin_observability::{Metrics as MetricsPage, Watchdog};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::args::timing::Times;
use crate::args::{Args, Mode};
use crate::assignments::{AssignmentWriter, LateConfirmation};
use crate::blocks::claim::Claims;
use crate::blocks::demand::DemandController;
use crate::blocks::demand::waiting_pods::WaitingPods;
use crate::cluster::ClusterCache;
use crate::cluster::freshness::FreshnessTracker;
use crate::cni::CniHandler;
use crate::cni::add::{AddContext, FirstRead};
use crate::cni::attachment_lock::AttachmentLocks;
use crate::events::Events;
use crate::host::run_dir::{Previous, RunDir};
use crate::metrics::{Metrics, Parts};
use crate::network::export::ExportedBlocks;
use crate::state::NodeState;
use crate::state::checkpoint::Checkpoint;
use crate::state::checkpoint::blocks::BlockCheckpoint;
use crate::state::restore;

use super::tasks::TaskInputs;

/// The started agent, and the values that its tasks need.
pub(super) struct Started {
    pub agent: Arc<Agent>,
    pub handler: Arc<CniHandler>,
    pub first_read: FirstRead,
    pub tasks: TaskInputs,
    pub metrics: MetricsPage,
    pub late_confirmations: mpsc::UnboundedReceiver<LateConfirmation>,
    pub clients: Clients,
}

/// Builds the agent and restores the node's state. The caller must have locked the run directory and saved the agent's identity.
///
/// # Errors
/// Fails if the agent can't use the checkpoint, the kubeconfig or the kernel's network.
pub(super) async fn start(
    args: Args,
    run_dir: RunDir,
    previous: &Previous,
    boot_id: String,
    stop: CancellationToken,
) -> anyhow::Result<Started> {
    let checkpoint = Checkpoint::open(&args.run_dir)?;
    let rebooted = checkpoint.begin_boot(&boot_id)?;
    let clients =
        bobbin_api_client::connect(args.kubeconfig.as_deref(), concat!("bobbin-agent/", env!("CARGO_PKG_VERSION")))
            .await?;
    let times = Times::new(args.time_scale, args.node_grace_period);
    let freshness = Arc::new(FreshnessTracker::new(times, last_contact(previous, &boot_id)));
    let network = Network::open(settings(&args)).await.context("the agent can't manage the node's network")?;
    let cluster = ClusterCache::open(clients.clone(), &args.node_name, &args.run_dir, Arc::clone(&freshness));
    let events = Events::start(clients.requests.clone(), &cluster);
    for warning in network.warnings() {
        tracing::warn!("{warning}");
        events.on_node(&event::NETWORK_CONFLICT, &warning);
    }
    let node_state = Arc::new(NodeState::new());
    let links = network.links().await.context("the agent can't list the node's links")?;
    let trusted = is_trusted(previous, &cluster, &boot_id, times);
    let attachments = restore::restore(&node_state, &checkpoint, &cluster, links, &boot_id, trusted);
    tracing::info!(
        attachments = attachments.len(),
        blocks = node_state.blocks().len(),
        rebooted,
        trusted,
        "the agent restored the node's state"
    );
    let (on_late, late_confirmations) = mpsc::unbounded_channel();
    let assignment_writer = AssignmentWriter::open(
        clients.clone(),
        &args.node_name,
        &args.run_dir,
        Arc::clone(&freshness),
        move |confirmation| {
            // Sending fails only while the agent is stopping. After its restart, the agent reads unconfirmed assignments again.
            let _ = on_late.send(confirmation);
        },
    )?;
    assignment_writer.restore(&attachments);
    let exported = ExportedBlocks::new(network.clone(), Arc::clone(&node_state));
    let (block_checkpoint, block_checkpoint_writer) = BlockCheckpoint::new(Arc::clone(&node_state), checkpoint.clone());
    let claims = Claims::new(
        &clients,
        cluster.clone(),
        Arc::clone(&node_state),
        Arc::clone(&freshness),
        args.max_addresses_per_node,
        Some(network.clone()),
    );
    let uninstalling = args.mode == Mode::Remove;
    let demand = DemandController::new(
        cluster.clone(),
        Arc::clone(&node_state),
        claims.clone(),
        block_checkpoint.clone(),
        events.clone(),
        args.block_idle,
        uninstalling,
    );
    let (mut page, watchdog) = (MetricsPage::default(), Watchdog::default());
    let parts = Parts {
        requests: &clients.metrics,
        claims: claims.metrics(),
        refused_pools: demand.refused_pools(),
        watchdog: watchdog.clone(),
    };
    let metrics = Metrics::register(&mut page, parts);
    let (first_read_ended, over) = watch::channel(false);
    let (blocks_were_read, done) = watch::channel(false);
    let first_read = FirstRead { over, done };
    let (waiting_pods, resync_trigger) = (Arc::new(WaitingPods::default()), Arc::new(Notify::new()));
    let agent = Arc::new(Agent {
        boot_id,
        node_state,
        checkpoint,
        network,
        cluster,
        assignment_writer,
        events,
        metrics,
        recent: Arc::default(),
        locks: AttachmentLocks::default(),
        freshness,
        stop,
        run_dir: Arc::new(run_dir),
        watchdog,
        args,
    });
    let adds =
        AddContext::new(demand.clone(), Arc::clone(&waiting_pods), first_read.clone(), Arc::clone(&resync_trigger));
    let handler = Arc::new(CniHandler::new(Arc::clone(&agent), adds));
    let tasks = TaskInputs {
        exported,
        claims,
        demand,
        waiting_pods,
        resync_trigger,
        block_checkpoint,
        block_checkpoint_writer,
        times,
        first_read_ended,
        blocks_were_read,
    };
    Ok(Started { agent, handler, first_read, tasks, metrics: page, late_confirmations, clients })
}

/// Returns the time at which an earlier agent of this boot last had contact with the API server. Returns `None` after a reboot, so that no
/// quiet time follows.
fn last_contact(previous: &Previous, boot_id: &str) -> Option<BootTime> {
    let now = boot_time();
    match previous {
        Previous::SameNode(identity) => identity.without_contact_for(boot_id, now).map(|silent| now.before(silent)),
        // The time of the last contact is unknown. Return the time of boot, so that the first answer counts as the end of an outage.
        Previous::Unknown => Some(BootTime::default()),
        Previous::Nothing | Previous::OtherNode { .. } => None,
    }
}

/// Whether ADDs may use the checkpoint's blocks before the API server has confirmed them.
///
/// The checkpoint must belong to the Node that the agent last saw. Also, the agent must not have been down so long that the operator may
/// have released the blocks.
fn is_trusted(previous: &Previous, cluster: &ClusterCache, boot_id: &str, times: Times) -> bool {
    let Previous::SameNode(identity) = previous else { return false };
    let same_node = cluster.node().is_some_and(|node| identity.node_uid.as_deref() == Some(&node.uid));
    let absent = identity.absent_for(boot_id, boot_time());
    same_node && absent.is_some_and(|absent| absent < times.max_trusted_absence())
}

fn settings(args: &Args) -> Settings {
    Settings {
        pod_table: args.pod_table,
        export_table: args.export_table,
        rule_priority: args.rule_priority,
        protocol: args.protocol,
        direct_protocol: args.direct_protocol,
        link_group: args.link_group,
        veth_prefix: args.veth_prefix.clone(),
        nft_table: args.nft_table.clone(),
        mtu: args.mtu,
        sysctl_root: args.sysctl_root.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_agent_with_an_unreadable_identity_begins_with_a_quiet_time_and_the_first_agent_does_not() {
        let quiet = |previous: &Previous| {
            let freshness =
                FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), last_contact(previous, "boot"));
            let now = BootTime(Duration::from_hours(1));
            freshness.answered(now);
            freshness.quiet_until(now)
        };
        assert!(quiet(&Previous::Unknown).is_some());
        assert_eq!(quiet(&Previous::Nothing), None);
    }
}
