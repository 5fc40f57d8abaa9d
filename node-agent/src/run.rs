//! The order of start and stop: kernel and journal first, then the socket, then the API server; configuration last. Holds no
//! rule of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use bobbin_api_client::Clients;
use bobbin_datapath::{Network, Settings, boot_time};
use bobbin_ipam::BootTime;
use bobbin_ipam::demand::BlockUse;
use bobbin_observability::{Health, Metrics as Page, PortError, Server, Watchdog, init_logs};
use bobbin_process::shutdown_on_signal;
use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::args::{Args, Mode, Routing};
use crate::attachment_lock::Turns;
use crate::block_checkpoint::{BlockCheckpoint, BlockCheckpointWriter};
use crate::blocks::api::BlockApi;
use crate::blocks::{BlockTasks, Blocks};
use crate::claim::Claims;
use crate::direct::Direct;
use crate::event::Events;
use crate::exported::Exported;
use crate::freshness::{Freshness, Kind};
use crate::journal::Journal;
use crate::leave::Leave;
use crate::ledger::Ledger;
use crate::metrics::{KindLabel, Metrics, PoolState};
use crate::own_watch::OwnWatches;
use crate::record::Recorder;
use crate::resync::{Resync, Resynced};
use crate::run_dir::heartbeat::HEARTBEAT_DEADLINE;
use crate::run_dir::{Identity, Previous, RunDir, RunDirError};
use crate::stock::Stock;
use crate::times::{self, Times};
use crate::verb::gc::Unlisted;
use crate::waiting_pods::WaitingPods;
use crate::watch::ClusterView;
use crate::{install, late, record_watch, repair, restore, run_dir, serve, stale_attachments};

/// The loops of stock and own records count as hanging after this.
const LOOP_DEADLINE: Duration = Duration::from_mins(2);
/// How long calls under way may take after a signal.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What it can't start without: the run directory, the kernel, the socket. Never the API server.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = Args::try_parse_from(args).unwrap_or_else(|error| error.exit());
    init_logs(args.log_format);
    let stop = shutdown_on_signal("stopping; routes and pods stay as they are")?;
    let boot_id = std::fs::read_to_string(&args.boot_id_path)
        .with_context(|| format!("the boot ID can't be read from {}", args.boot_id_path.display()))?
        .trim()
        .to_owned();
    let locked = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        locked = RunDir::lock(&args.run_dir, &args.node_name, args.pod_name.as_deref()) => locked,
    };
    let (run_dir, previous) = locked?;
    if let Previous::SameNode(identity) = &previous {
        let (absent, silent) =
            (identity.absent_for(&boot_id, boot_time()), identity.without_contact_for(&boot_id, boot_time()));
        tracing::info!(uid = identity.node_uid, ?absent, without_contact = ?silent, "found the checkpoint of an earlier agent");
    }
    let identity = previous.identity(&args.node_name, &boot_id, boot_time());
    run_dir.save(&identity)?;
    let journal = Journal::open(&args.run_dir)?;
    let rebooted = journal.begin_boot(&boot_id)?;
    let clients =
        bobbin_api_client::connect(args.kubeconfig.as_deref(), concat!("bobbin-agent/", env!("CARGO_PKG_VERSION")))
            .await?;
    let times = Times::new(args.time_scale, Duration::from_secs(args.node_gone_seconds));
    let freshness = Arc::new(Freshness::new(times, last_contact(&previous, &boot_id)));
    let network = Network::open(settings(&args)).await.context("the node's network can't be managed")?;
    let view = ClusterView::open(clients.clone(), &args.node_name, &args.run_dir, Arc::clone(&freshness));
    let events = Events::start(clients.requests.clone(), &view);
    for warning in network.warnings() {
        tracing::warn!("{warning}");
        events.node_warning("NetworkClash", &warning);
    }
    let ledger = Arc::new(Ledger::new());
    let links = network.links().await.context("the links on the node can't be read")?;
    let trusted = is_trusted(&previous, &view, &boot_id, times);
    let living = restore::restore(&ledger, &journal, &view, links, &boot_id, trusted);
    tracing::info!(attachments = living.len(), blocks = ledger.blocks().len(), rebooted, trusted, "restored");
    let (to_late, verdicts) = mpsc::unbounded_channel();
    let recorder =
        Recorder::open(clients.clone(), &args.node_name, &args.run_dir, Arc::clone(&freshness), move |verdict| {
            // Nobody listens only while the agent stops; the next start lists the records.
            let _ = to_late.send(verdict);
        })?;
    recorder.restore(&living);
    let exported = Exported::new(network.clone(), Arc::clone(&ledger));
    let (checkpoint, checkpoint_writer) = BlockCheckpoint::new(Arc::clone(&ledger), journal.clone());
    let claims = Claims::new(&clients, view.clone(), Arc::clone(&ledger), Arc::clone(&freshness));
    let leaving = args.mode == Mode::Remove;
    let stock = Stock::new(
        view.clone(),
        Arc::clone(&ledger),
        claims.clone(),
        checkpoint.clone(),
        events.clone(),
        args.block_idle,
        leaving,
    );
    let mut page = Page::default();
    let metrics = Metrics::register(page.registry());
    page.registry().register(
        "claim_conflicts",
        "Tries at blocks that were not to be had: other nodes were quicker, or what the pool's status says is old",
        claims.conflicts(),
    );
    let (tell_first_read, first_read) = watch::channel(false);
    let (tell_blocks_read, blocks_read) = watch::channel(false);
    let agent = Arc::new(Agent {
        boot_id,
        ledger,
        journal,
        network,
        exported,
        view,
        recorder,
        stock,
        events,
        metrics,
        unlisted: Unlisted::default(),
        waiting: WaitingPods::default(),
        prepared: [AtomicBool::new(false), AtomicBool::new(false)],
        turns: Turns::default(),
        freshness,
        resync: Arc::default(),
        first_read,
        blocks_read,
        stop: stop.clone(),
        run_dir: Arc::new(run_dir),
        watchdog: Watchdog::default(),
        args,
    });
    serve_page(&agent, page);
    let socket = serve::Socket::bind(&agent.run_dir.socket())?;
    let serving = tokio::spawn(serve::serve(socket, Arc::clone(&agent), stop.clone()));
    tracing::info!(node = agent.args.node_name, "serving");
    tokio::spawn(late::run(Arc::clone(&agent), BlockApi::new(&clients), verdicts));
    let (progress, resynced) = watch::channel(Resynced::default());
    let protocol =
        Protocol { clients, claims, checkpoint, checkpoint_writer, times, tell_first_read, tell_blocks_read, progress };
    let tasks = background(&agent, protocol, resynced);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = tasks => ended?,
        ended = heartbeat(&agent, &identity) => ended?,
    }
    if tokio::time::timeout(LAST_CALLS, serving).await.is_err() {
        tracing::warn!("calls under way were cut off; the runtime repeats them");
    }
    // The next agent counts from the end of this one.
    if let Err(error) = agent.run_dir.save(&current(&agent, &identity)) {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// The identity as it is now.
fn current(agent: &Agent, started: &Identity) -> Identity {
    let seen = agent.view.node().map(|node| node.uid);
    let contact = agent.freshness.last_contact(boot_time());
    started.at(boot_time(), *agent.blocks_read.borrow(), seen, contact)
}

/// Keeps run directory and identity. The blocks are trusted once they were read.
async fn heartbeat(agent: &Agent, started: &Identity) -> Result<(), RunDirError> {
    let beat = agent.watchdog.register("heartbeat", HEARTBEAT_DEADLINE);
    // An agent that is killed soon after its first read is trusted by the next one.
    run_dir::heartbeat::run(
        &agent.run_dir,
        || current(agent, started),
        agent.blocks_read.clone(),
        beat,
        agent.stop.clone(),
    )
    .await
}

/// When the API server was last in contact, as far as an earlier run of this boot knows. A new boot has no quiet time.
fn last_contact(previous: &Previous, boot_id: &str) -> Option<BootTime> {
    let now = boot_time();
    match previous {
        Previous::SameNode(identity) => identity.without_contact_for(boot_id, now).map(|silent| now.before(silent)),
        Previous::Nothing | Previous::Unknown | Previous::OtherNode { .. } => None,
    }
}

/// Whether blocks that served when the checkpoint was written may serve before the API server has spoken: the agent was away for so short
/// a time that nobody can have reclaimed them, and the checkpoint is of the Node that was last seen.
fn is_trusted(previous: &Previous, view: &ClusterView, boot_id: &str, times: Times) -> bool {
    let Previous::SameNode(identity) = previous else { return false };
    let same_node = view.node().is_some_and(|node| identity.node_uid.as_deref() == Some(&node.uid));
    let absent = identity.absent_for(boot_id, boot_time());
    same_node && absent.is_some_and(|absent| absent < times.longest_absence())
}

/// What speaks to the API server about this node's blocks.
struct Protocol {
    clients: Clients,
    claims: Claims,
    checkpoint: BlockCheckpoint,
    checkpoint_writer: BlockCheckpointWriter,
    times: Times,
    tell_first_read: watch::Sender<bool>,
    tell_blocks_read: watch::Sender<bool>,
    progress: watch::Sender<Resynced>,
}

/// Everything beside the socket. Ends only with an error: what can't go on restarts the whole agent, which loses nothing by it.
async fn background(agent: &Arc<Agent>, protocol: Protocol, resynced: watch::Receiver<Resynced>) -> anyhow::Result<()> {
    let Protocol { clients, claims, checkpoint, checkpoint_writer, times, tell_first_read, tell_blocks_read, progress } =
        protocol;
    let resync = Resync {
        clients: clients.clone(),
        view: agent.view.clone(),
        ledger: Arc::clone(&agent.ledger),
        claims,
        recorder: agent.recorder.clone(),
        freshness: Arc::clone(&agent.freshness),
        journal: agent.journal.clone(),
        events: agent.events.clone(),
        boot_id: agent.boot_id.clone(),
        interval: agent.args.relist_interval,
        times,
        beats: agent.watchdog.clone(),
        hint: Arc::clone(&agent.resync),
    };
    let own = OwnWatches {
        clients: clients.clone(),
        view: agent.view.clone(),
        ledger: Arc::clone(&agent.ledger),
        freshness: Arc::clone(&agent.freshness),
        resync: Arc::clone(&agent.resync),
        watchdog: agent.watchdog.clone(),
    };
    let blocks = Blocks::new(BlockTasks {
        boot_id: agent.boot_id.clone(),
        clients: clients.clone(),
        view: agent.view.clone(),
        ledger: Arc::clone(&agent.ledger),
        checkpoint,
        exports: Arc::new(agent.exported.clone()),
        recorder: agent.recorder.clone(),
        freshness: Arc::clone(&agent.freshness),
        events: agent.events.clone(),
        times,
        watchdog: agent.watchdog.clone(),
    });
    let direct = (agent.args.routing == Routing::Direct).then(|| Direct::new(&agent.args.node_name));
    let mut tasks = tokio::task::JoinSet::new();
    let view = agent.view.clone();
    tasks.spawn(async move { view.run().await });
    tasks.spawn(own.run());
    tasks.spawn(record_watch::run(
        clients.clone(),
        agent.view.clone(),
        Arc::clone(&agent.ledger),
        agent.recorder.clone(),
        agent.watchdog.register(Kind::Records.name(), LOOP_DEADLINE),
    ));
    tasks.spawn(resync.run(progress));
    tasks.spawn(checkpoint_writer.run(agent.stop.clone()));
    tasks.spawn(async move { blocks.run().await });
    tasks.spawn(first_read(tell_first_read, tell_blocks_read, resynced.clone(), agent.stop.clone()));
    tasks.spawn(repair::run(Arc::clone(agent), direct.clone(), resynced.clone()));
    if let Some(direct) = direct {
        let clients = clients.clone();
        tasks.spawn(async move { direct.run(&clients).await });
    }
    let (stale, requests) = (Arc::clone(agent), clients.requests.clone());
    tasks.spawn(async move { stale_attachments::run(&stale, requests, times.pod_gone_apart()).await });
    let stock = agent.stock.clone();
    let beat = agent.watchdog.register("stock", LOOP_DEADLINE);
    tasks.spawn(async move { stock.run(beat).await });
    match agent.args.mode {
        Mode::Run => {
            let (tell_serves, serves) = watch::channel(false);
            if agent.args.install {
                tasks.spawn(install::run(Arc::clone(agent), serves));
            }
            tasks.spawn(live(Arc::clone(agent), resynced, tell_serves))
        }
        Mode::Remove => tasks.spawn(leave(Arc::clone(agent), resynced)),
    };
    match tasks.join_next().await {
        Some(Ok(())) if agent.stop.is_cancelled() => Ok(()),
        Some(Ok(())) => anyhow::bail!("a part of the agent ended by itself; this is a defect, report it"),
        Some(Err(error)) => Err(error).context("a part of the agent failed; this is a defect, report it"),
        None => Ok(()),
    }
}

/// Tells the ADDs that wait when own blocks were read, or that it takes too long: then the blocks of the checkpoint serve without.
async fn first_read(
    tell: watch::Sender<bool>,
    tell_read: watch::Sender<bool>,
    mut resynced: watch::Receiver<Resynced>,
    stop: CancellationToken,
) {
    // Too long, or over: both let the ADDs go on.
    let _ = tokio::time::timeout(times::FIRST_READ_TIMEOUT, resynced.wait_for(|done| done.blocks)).await;
    tell.send_replace(true);
    let _ = resynced.wait_for(|done| done.blocks).await;
    tell_read.send_replace(true);
    stop.cancelled().await;
}

/// Becomes ready, which lets the configuration be installed.
async fn live(agent: Arc<Agent>, mut resynced: watch::Receiver<Resynced>, serves: watch::Sender<bool>) {
    if !agent.run_dir.was_ready() {
        // From now on an ADD can be served: the Node and its blocks are known.
        let _ = resynced.wait_for(|resynced| resynced.blocks).await;
        if let Err(error) = agent.run_dir.mark_ready() {
            tracing::error!("the plugin can't answer STATUS while the agent is away: {error}");
        }
    }
    serves.send_replace(true);
    agent.stop.cancelled().await;
}

/// Leaves the node, then waits for the signal: a DaemonSet would start it again.
async fn leave(agent: Arc<Agent>, mut resynced: watch::Receiver<Resynced>) {
    let _ = resynced.wait_for(|resynced| resynced.blocks).await;
    let leave = Leave {
        args: agent.args.clone(),
        ledger: Arc::clone(&agent.ledger),
        recorder: agent.recorder.clone(),
        network: agent.network.clone(),
        exported: agent.exported.clone(),
        events: agent.events.clone(),
        run_dir: Arc::clone(&agent.run_dir),
    };
    if let Err(error) = leave.run().await {
        tracing::error!("{error}");
        agent.events.node_warning("NotRemoved", &error.to_string());
    }
    agent.stop.cancelled().await;
}

/// Metrics and health: for probes on a socket of the run directory, for everybody at `--metrics-address`. Neither stops the agent.
fn serve_page(agent: &Arc<Agent>, page: Page) {
    let asked = Arc::clone(agent);
    let health = Arc::new(move || {
        sample(&asked);
        let ready = asked.args.mode == Mode::Remove || asked.run_dir.was_ready();
        let missing = || "its Node and its blocks have not been seen at the API server since boot".to_owned();
        Health::of(&asked.watchdog, ready.then_some(()).ok_or_else(missing))
    });
    let server = Server::new(Arc::new(page), health);
    if let Some(address) = agent.args.metrics_address {
        let (events, stop, server) = (agent.events.clone(), agent.stop.clone(), server.clone());
        tokio::spawn(async move {
            let failed = |error: &PortError| events.node_warning("MetricsPort", &error.to_string());
            server.serve_at(address, failed, stop.cancelled_owned()).await;
        });
    }
    let (path, stop) = (agent.run_dir.health_socket(), agent.stop.clone());
    tokio::spawn(async move { serve::serve_probes(&path, server, stop).await });
}

/// Sets the gauges; the probes ask often enough.
fn sample(agent: &Agent) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    agent.metrics.attachments.set(count(agent.ledger.attachment_count()));
    agent.metrics.pending.set(count(agent.recorder.pending()));
    for (kind, number) in agent.view.unreadable().counts() {
        agent.metrics.unreadable.get_or_create(&KindLabel { kind }).set(count(number));
    }
    // A pool of which nothing is left here is not shown with its last numbers.
    agent.metrics.addresses.clear();
    let pools: BTreeSet<String> = agent.ledger.blocks().into_iter().map(|block| block.held.pool).collect();
    agent.metrics.blocks.clear();
    for block in agent.ledger.blocks() {
        let labels = PoolState { pool: block.held.pool, state: block.state.name() };
        agent.metrics.blocks.get_or_create(&labels).inc();
    }
    for pool in pools {
        let uses = agent.ledger.pool_use(&pool, agent.cooldown(&pool));
        let sum = |of: fn(&BlockUse) -> u32| uses.iter().map(|block| i64::from(of(block))).sum();
        let free = |block: &BlockUse| block.usable.saturating_sub(block.held).saturating_sub(block.cooling);
        for (state, number) in
            [("held", sum(|block| block.held)), ("cooling", sum(|block| block.cooling)), ("free", sum(free))]
        {
            agent.metrics.addresses.get_or_create(&PoolState { pool: pool.clone(), state }).set(number);
        }
    }
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
