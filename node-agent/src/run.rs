//! Starts the agent, waits for a signal or an error, and then shuts the agent down.

mod start;
mod status_document;
mod status_server;
mod tasks;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bobbin_datapath::boot_time;
use bobbin_observability::init_logs;
use bobbin_process::{refuse_renamed_variables, shutdown_on_signal};
use clap::Parser;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::args::Args;
use crate::assignments::late_confirmations;
use crate::blocks::api_calls::BlockApi;
use crate::cni::add::FirstRead;
use crate::cni::server;
use crate::host::run_dir::heartbeat::HEARTBEAT_DEADLINE;
use crate::host::run_dir::{self, Identity, Previous, RunDir, RunDirError};
use crate::resync::Resynced;
use start::Started;

/// The longest time that the agent waits for unfinished CNI calls after the stop signal.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Fails if the agent can't use the run directory, the kernel's network or the socket, or if a task failed. An unreachable API server is
/// not an error.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = Args::try_parse_from(args).unwrap_or_else(|error| error.exit());
    let logs = init_logs(args.log_format, &args.log_level);
    if let Some(directory) = &args.log_level_dir {
        let names = vec![format!("agent.{}", args.node_name), "agent".to_owned()];
        tokio::spawn(logs.follow(directory.clone(), names));
    }
    refuse_renamed_variables()?;
    let stop = shutdown_on_signal("the agent is stopping; routes and pods stay as they are")?;
    let boot_id = read_boot_id(&args.boot_id_path)?;
    let locked = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        locked = RunDir::lock(&args.run_dir, &args.node_name, args.pod_name.as_deref()) => locked,
    };
    let (run_dir, previous) = locked?;
    log_previous(&previous, &boot_id);
    let identity = previous.identity(&args.node_name, &boot_id, boot_time());
    run_dir.save(&identity)?;
    let Started { agent, handler, first_read, tasks, metrics, late_confirmations, clients } =
        start::start(args, run_dir, &previous, boot_id, stop.clone()).await?;
    status_server::spawn(&agent, tasks.demand.clone(), metrics);
    let socket = server::Socket::bind(&agent.run_dir.socket())?;
    let serving = tokio::spawn(server::serve(socket, handler, stop.clone()));
    tracing::info!(node = agent.args.node_name, "the agent is serving CNI calls");
    tokio::spawn(late_confirmations::run(Arc::clone(&agent), BlockApi::new(&clients), late_confirmations));
    let (progress, resynced) = watch::channel(Resynced::default());
    tokio::select! {
        () = stop.cancelled() => {}
        ended = tasks::run(&agent, &clients, tasks, progress, resynced) => ended?,
        ended = heartbeat(&agent, &identity, &first_read) => ended?,
    }
    if tokio::time::timeout(SHUTDOWN_GRACE_PERIOD, serving).await.is_err() {
        tracing::warn!(
            "the agent is stopping before it has answered all CNI calls; the container runtime repeats the unanswered calls"
        );
    }
    // The next agent uses this last save to compute how long no agent was running.
    if let Err(error) = agent.run_dir.save(&current_identity(&agent, &identity, &first_read)) {
        tracing::warn!("{error}");
    }
    Ok(())
}

fn read_boot_id(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can't read the boot ID from {} (--boot-id-path)", path.display()))?;
    Ok(text.trim().to_owned())
}

fn log_previous(previous: &Previous, boot_id: &str) {
    let Previous::SameNode(identity) = previous else { return };
    let now = boot_time();
    let (absent, without_contact) = (identity.absent_for(boot_id, now), identity.without_contact_for(boot_id, now));
    tracing::info!(
        uid = identity.node_uid,
        ?absent,
        ?without_contact,
        "the agent found the checkpoint of an earlier agent"
    );
}

fn current_identity(agent: &Agent, started: &Identity, first_read: &FirstRead) -> Identity {
    let node_uid = agent.cluster.node().map(|node| node.uid);
    let contact = agent.freshness.last_contact(boot_time());
    started.at(boot_time(), *first_read.done.borrow(), node_uid, contact)
}

/// Keeps the lock of the run directory, and saves the agent's identity at regular intervals. Once this agent has read the node's blocks,
/// the saved identity allows the next agent to trust the checkpoint.
async fn heartbeat(agent: &Agent, started: &Identity, first_read: &FirstRead) -> Result<(), RunDirError> {
    let beat = agent.watchdog.register("heartbeat", HEARTBEAT_DEADLINE);
    // Besides its regular saves, the loop saves the identity in two cases:
    // - after the first read of the blocks, so that the next agent trusts the checkpoint;
    // - after each invalidation, so that the next agent knows of an outage.
    run_dir::heartbeat::run(
        &agent.run_dir,
        || current_identity(agent, started, first_read),
        first_read.done.clone(),
        agent.freshness.invalidations(),
        beat,
        agent.stop.clone(),
    )
    .await
}
