//! Runs the agent's background tasks. If a task ends, the agent exits, and kubelet restarts the agent. A restart loses no state.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bobbin_api_client::Clients;
use bobbin_messages::event::agent as event;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::args::timing::{self, Times};
use crate::args::{Mode, Routing};
use crate::assignments::watch as assignment_watch;
use crate::blocks::claim::Claims;
use crate::blocks::demand::DemandController;
use crate::blocks::demand::waiting_pods::WaitingPods;
use crate::blocks::{BlockContext, BlockReconciler};
use crate::cluster::freshness::WatchedKind;
use crate::cluster::own_objects::OwnWatches;
use crate::host::install;
use crate::host::uninstall::{FORCED_RELEASE_TIMEOUT, Uninstall};
use crate::network::direct_routes::DirectRoutes;
use crate::network::export::ExportedBlocks;
use crate::network::reconcile;
use crate::resync::{Resync, Resynced, stale_attachments};
use crate::state::checkpoint::blocks::{BlockCheckpoint, BlockCheckpointWriter};

/// How long the demand controller or the watch of own assignments may make no progress before it counts as hanging.
const LOOP_PROGRESS_DEADLINE: Duration = Duration::from_mins(2);

/// The parts of the agent that only its tasks need.
pub(super) struct TaskInputs {
    /// The routes of the blocks that this node exports.
    pub exported: ExportedBlocks,
    pub claims: Claims,
    pub demand: DemandController,
    pub waiting_pods: Arc<WaitingPods>,
    /// Triggers a pass of the resync.
    pub resync_trigger: Arc<Notify>,
    pub block_checkpoint: BlockCheckpoint,
    pub block_checkpoint_writer: BlockCheckpointWriter,
    pub times: Times,
    /// Set to true when the agent has read this node's blocks, or after [`timing::FIRST_READ_TIMEOUT`].
    pub first_read_ended: watch::Sender<bool>,
    /// Set to true when the agent has read this node's blocks.
    pub blocks_were_read: watch::Sender<bool>,
}

/// Runs all background tasks until one of them ends.
///
/// # Errors
/// Fails if a task failed, or if a task ended although the agent was not stopping.
pub(super) async fn run(
    agent: &Arc<Agent>,
    clients: &Clients,
    inputs: TaskInputs,
    progress: watch::Sender<Resynced>,
    resynced: watch::Receiver<Resynced>,
) -> anyhow::Result<()> {
    let TaskInputs {
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
    } = inputs;
    let blocks = block_reconciler(agent, clients, &exported, block_checkpoint, times);
    let direct = (agent.args.routing == Routing::Direct).then(|| DirectRoutes::new(&agent.args.node_name));
    let mut tasks = JoinSet::new();
    spawn_watches(&mut tasks, agent, clients, Arc::clone(&resync_trigger));
    tasks.spawn(resync(agent, clients, claims, times, resync_trigger).run(progress));
    tasks.spawn(block_checkpoint_writer.run(agent.stop.clone()));
    tasks.spawn(async move { blocks.run().await });
    tasks.spawn(announce_first_read(first_read_ended, blocks_were_read, resynced.clone(), agent.stop.clone()));
    tasks.spawn(reconcile::run(Arc::clone(agent), exported.clone(), direct.clone(), resynced.clone()));
    if let Some(direct) = direct {
        let clients = clients.clone();
        tasks.spawn(async move { direct.run(&clients).await });
    }
    let (stale, requests) = (Arc::clone(agent), clients.requests.clone());
    tasks.spawn(
        async move { stale_attachments::run(&stale, &waiting_pods, requests, times.pod_absence_interval()).await },
    );
    let beat = agent.watchdog.register("block demand", LOOP_PROGRESS_DEADLINE);
    tasks.spawn(async move { demand.run(beat).await });
    match agent.args.mode {
        Mode::Run => {
            let (set_serves, serves) = watch::channel(false);
            if agent.args.install {
                tasks.spawn(install::run(Arc::clone(agent), serves));
            }
            tasks.spawn(become_ready(Arc::clone(agent), resynced, set_serves))
        }
        Mode::Remove => tasks.spawn(uninstall(Arc::clone(agent), exported, resynced)),
    };
    match tasks.join_next().await {
        Some(Ok(())) if agent.stop.is_cancelled() => Ok(()),
        Some(Ok(())) => anyhow::bail!("a task of the agent ended unexpectedly; this is a bug, please report it"),
        Some(Err(error)) => Err(error).context("a task of the agent failed; this is a bug, please report it"),
        None => Ok(()),
    }
}

fn spawn_watches(tasks: &mut JoinSet<()>, agent: &Arc<Agent>, clients: &Clients, resync_trigger: Arc<Notify>) {
    let cluster = agent.cluster.clone();
    tasks.spawn(async move { cluster.run().await });
    let own_objects = OwnWatches {
        clients: clients.clone(),
        cluster: agent.cluster.clone(),
        node_state: Arc::clone(&agent.node_state),
        freshness: Arc::clone(&agent.freshness),
        resync_trigger,
        watchdog: agent.watchdog.clone(),
    };
    tasks.spawn(own_objects.run());
    tasks.spawn(assignment_watch::run(
        clients.clone(),
        agent.cluster.clone(),
        Arc::clone(&agent.node_state),
        agent.assignment_writer.clone(),
        agent.watchdog.register(WatchedKind::Assignments.name(), LOOP_PROGRESS_DEADLINE),
    ));
}

fn resync(agent: &Agent, clients: &Clients, claims: Claims, times: Times, resync_trigger: Arc<Notify>) -> Resync {
    Resync {
        clients: clients.clone(),
        cluster: agent.cluster.clone(),
        node_state: Arc::clone(&agent.node_state),
        claims,
        assignment_writer: agent.assignment_writer.clone(),
        freshness: Arc::clone(&agent.freshness),
        checkpoint: agent.checkpoint.clone(),
        events: agent.events.clone(),
        metrics: agent.metrics.clone(),
        recent: Arc::clone(&agent.recent),
        boot_id: agent.boot_id.clone(),
        interval: agent.args.relist_interval,
        times,
        beats: agent.watchdog.clone(),
        trigger: resync_trigger,
    }
}

fn block_reconciler(
    agent: &Agent,
    clients: &Clients,
    exported: &ExportedBlocks,
    checkpoint: BlockCheckpoint,
    times: Times,
) -> BlockReconciler {
    BlockReconciler::new(BlockContext {
        boot_id: agent.boot_id.clone(),
        clients: clients.clone(),
        cluster: agent.cluster.clone(),
        node_state: Arc::clone(&agent.node_state),
        checkpoint,
        exports: Arc::new(exported.clone()),
        assignment_writer: agent.assignment_writer.clone(),
        freshness: Arc::clone(&agent.freshness),
        events: agent.events.clone(),
        times,
        watchdog: agent.watchdog.clone(),
    })
}

/// Wakes waiting ADDs when the agent has read this node's blocks, or after [`timing::FIRST_READ_TIMEOUT`]. After the timeout, the ADDs may
/// use the checkpoint's trusted blocks although the agent has not read the blocks yet.
async fn announce_first_read(
    ended: watch::Sender<bool>,
    blocks_were_read: watch::Sender<bool>,
    mut resynced: watch::Receiver<Resynced>,
    stop: CancellationToken,
) {
    // Ignore the result: a timeout or a closed channel also wakes the ADDs.
    let _ = tokio::time::timeout(timing::FIRST_READ_TIMEOUT, resynced.wait_for(|done| done.blocks)).await;
    ended.send_replace(true);
    let _ = resynced.wait_for(|done| done.blocks).await;
    blocks_were_read.send_replace(true);
    stop.cancelled().await;
}

/// Marks the agent ready once it has read its Node and blocks. The installer then installs the CNI configuration.
async fn become_ready(agent: Arc<Agent>, mut resynced: watch::Receiver<Resynced>, serves: watch::Sender<bool>) {
    if !agent.run_dir.was_ready() {
        let _ = resynced.wait_for(|resynced| resynced.blocks).await;
        if let Err(error) = agent.run_dir.mark_ready() {
            tracing::error!(
                "the agent could not write the ready marker: {error}. The agent will try again. Without the marker, STATUS fails while the agent is not running"
            );
        }
    }
    serves.send_replace(true);
    agent.stop.cancelled().await;
}

/// Uninstalls Bobbin from the node, then waits for the stop signal. If the process exited before the signal, kubelet would start it again.
async fn uninstall(agent: Arc<Agent>, exported: ExportedBlocks, mut resynced: watch::Receiver<Resynced>) {
    let read = resynced.wait_for(|resynced| resynced.blocks);
    if agent.args.force {
        let _ = tokio::time::timeout(FORCED_RELEASE_TIMEOUT, read).await;
    } else {
        let _ = read.await;
    }
    let uninstall = Uninstall { agent: Arc::clone(&agent), exported };
    if let Err(error) = uninstall.run().await {
        tracing::error!("{error}");
        agent.events.on_node(&event::UNINSTALL_FAILED, &error.to_string());
    }
    agent.stop.cancelled().await;
}
