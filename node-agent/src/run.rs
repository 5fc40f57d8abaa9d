//! The order of start and stop: kernel and journal first, then the socket, then the API server; configuration last. Called by
//! `bobbin-all`; holds no rule of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use bobbin_addressing::stock::BlockUse;
use bobbin_apiserver::Clients;
use bobbin_kernel::{Network, Settings};
use bobbin_observability::{Health, Metrics as Page, init_logs};
use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::adopt::{Adopt, Adopted};
use crate::agent::Agent;
use crate::args::{Args, Mode, Routing};
use crate::claim::Claims;
use crate::direct::Direct;
use crate::event::Events;
use crate::exported::Exported;
use crate::journal::Journal;
use crate::leave::Leave;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, PoolState};
use crate::record::Recorder;
use crate::stock::Stock;
use crate::turns::Turns;
use crate::verb::gc::Unlisted;
use crate::waiting_pods::WaitingPods;
use crate::watch::ClusterView;
use crate::{install, late, repair, restore, serve, stale_attachments};

/// How long calls under way may take after a signal.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What it can't start without: the run directory, the kernel, the socket. Never the API server.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = Args::try_parse_from(args).unwrap_or_else(|error| error.exit());
    init_logs(args.log_format.parse().unwrap_or_default());
    let stop = on_signal()?;
    let boot_id = std::fs::read_to_string(&args.boot_id_path)
        .with_context(|| format!("the boot ID can't be read from {}", args.boot_id_path.display()))?
        .trim()
        .to_owned();
    let journal = Journal::open(&args.run_dir)?;
    let rebooted = journal.begin_boot(&boot_id)?;
    let clients =
        bobbin_apiserver::connect(args.kubeconfig.as_deref(), concat!("bobbin-agent/", env!("CARGO_PKG_VERSION")))
            .await?;
    let network = Network::open(settings(&args)).await.context("the node's network can't be managed")?;
    let view = ClusterView::open(clients.clone(), &args.node_name, &args.run_dir);
    let events = Events::start(clients.requests.clone(), &view);
    for warning in network.warnings() {
        tracing::warn!("{warning}");
        events.node_warning("NetworkClash", &warning);
    }
    let ledger = Arc::new(Ledger::new());
    let links = network.links().await.context("the links on the node can't be read")?;
    let living = restore::restore(&ledger, &journal, &view, links, &boot_id);
    tracing::info!(attachments = living.len(), blocks = ledger.blocks().len(), rebooted, "restored");
    let (to_late, verdicts) = mpsc::unbounded_channel();
    let recorder = Recorder::open(clients.clone(), &args.node_name, &args.run_dir, move |verdict| {
        // Nobody listens only while the agent stops; the next start lists the records.
        let _ = to_late.send(verdict);
    })?;
    recorder.restore(&living);
    let exported = Exported::new(network.clone(), journal.clone(), Arc::clone(&ledger));
    let claims = Claims::new(clients.clone(), view.clone(), Arc::clone(&ledger), Arc::new(exported.clone()));
    let stock = Stock::new(view.clone(), Arc::clone(&ledger), claims.clone(), args.block_idle);
    let mut page = Page::default();
    let metrics = Metrics::register(page.registry());
    page.registry().register(
        "claim_conflicts",
        "Tries at blocks that were not to be had: other nodes were quicker, or what the pool's status says is old",
        claims.conflicts(),
    );
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
        careful: AtomicBool::new(false),
        stop: stop.clone(),
        args,
    });
    let listener = serve::bind(&agent.args.run_dir.join("agent.sock")).context("the socket can't be bound")?;
    let serving = tokio::spawn(serve::serve(listener, Arc::clone(&agent), stop.clone()));
    tracing::info!(node = agent.args.node_name, "serving");
    tokio::spawn(late::run(Arc::clone(&agent), verdicts));
    let tasks = background(&agent, &clients, claims);
    page_of(&agent, page).await?;
    tokio::select! {
        () = stop.cancelled() => {}
        ended = tasks => ended?,
    }
    if tokio::time::timeout(LAST_CALLS, serving).await.is_err() {
        tracing::warn!("calls under way were cut off; the runtime repeats them");
    }
    Ok(())
}

/// Everything beside the socket. Ends only with an error: what can't go on restarts the whole agent, which loses nothing by it.
async fn background(agent: &Arc<Agent>, clients: &Clients, claims: Claims) -> anyhow::Result<()> {
    let news = agent.view.block_news();
    let (progress, adopted) = watch::channel(Adopted::default());
    let adopt = Adopt {
        clients: clients.clone(),
        view: agent.view.clone(),
        ledger: Arc::clone(&agent.ledger),
        claims: claims.clone(),
        recorder: agent.recorder.clone(),
        events: agent.events.clone(),
        boot_id: agent.boot_id.clone(),
        relist_interval: agent.args.relist_interval,
        looks_apart: agent.args.sweep_interval,
    };
    let direct = (agent.args.routing == Routing::Direct).then(|| Direct::new(&agent.args.node_name));
    let mut tasks = tokio::task::JoinSet::new();
    let (view, exported, stop) = (agent.view.clone(), agent.exported.clone(), agent.stop.clone());
    tasks.spawn(async move { view.run().await });
    tasks.spawn(adopt.run(news, progress));
    tasks.spawn(async move { exported.keep_list(&stop).await });
    tasks.spawn(repair::run(Arc::clone(agent), direct.clone(), adopted.clone()));
    if let Some(direct) = direct {
        let clients = clients.clone();
        tasks.spawn(async move { direct.run(&clients).await });
    }
    let (stale, requests) = (Arc::clone(agent), clients.requests.clone());
    tasks.spawn(async move { stale_attachments::run(&stale, requests, stale_attachments::POD_ABSENCE).await });
    match agent.args.mode {
        Mode::Run => tasks.spawn(live(Arc::clone(agent), adopted)),
        Mode::Remove => tasks.spawn(leave(Arc::clone(agent), claims, adopted)),
    };
    match tasks.join_next().await {
        Some(Ok(())) if agent.stop.is_cancelled() => Ok(()),
        Some(Ok(())) => anyhow::bail!("a part of the agent ended by itself; this is a defect, report it"),
        Some(Err(error)) => Err(error).context("a part of the agent failed; this is a defect, report it"),
        None => Ok(()),
    }
}

/// Installs the plugin, becomes ready, installs the configuration, keeps the stock.
async fn live(agent: Arc<Agent>, mut adopted: watch::Receiver<Adopted>) {
    if agent.args.install {
        for competitor in install::competitors(&agent.args) {
            tracing::warn!("{competitor}");
            agent.events.node_warning("OtherConfiguration", &competitor);
        }
        report(&agent, install::install_shim(&agent.args).err());
    }
    if !agent.journal.was_ready() {
        // An ADD would be served from now on: the Node is known, its blocks are.
        let _ = adopted.wait_for(|adopted| adopted.blocks).await;
        if let Err(error) = agent.journal.mark_ready() {
            tracing::error!(%error, "STATUS can't say yes");
        }
    }
    if agent.args.install {
        report(&agent, install::install_conflist(&agent.args).await.err());
    }
    let _ = adopted.wait_for(|adopted| adopted.blocks).await;
    agent.stock.run().await;
}

fn report(agent: &Agent, failed: Option<install::InstallError>) {
    if let Some(error) = failed {
        tracing::error!("{error}");
        agent.events.node_warning("NotInstalled", &error.to_string());
    }
}

/// Leaves the node, then waits for the signal: a DaemonSet would start it again.
async fn leave(agent: Arc<Agent>, claims: Claims, mut adopted: watch::Receiver<Adopted>) {
    let _ = adopted.wait_for(|adopted| adopted.blocks).await;
    let leave = Leave {
        args: agent.args.clone(),
        ledger: Arc::clone(&agent.ledger),
        recorder: agent.recorder.clone(),
        claims,
        network: agent.network.clone(),
        exported: agent.exported.clone(),
        events: agent.events.clone(),
    };
    report(&agent, leave.run().await.err());
    agent.stop.cancelled().await;
}

async fn page_of(agent: &Arc<Agent>, page: Page) -> anyhow::Result<()> {
    let Some(address) = agent.args.metrics_address else { return Ok(()) };
    let server = bobbin_observability::Server::bind(address)
        .await
        .with_context(|| format!("metrics and health can't be served at {address}"))?;
    let (asked, stop) = (Arc::clone(agent), agent.stop.clone());
    let health = Arc::new(move || {
        sample(&asked);
        if asked.args.mode == Mode::Remove || asked.journal.was_ready() {
            Health::well()
        } else {
            Health::not_ready("its Node and its blocks have not been seen at the API server since boot")
        }
    });
    tokio::spawn(server.run(Arc::new(page), health, async move { stop.cancelled().await }));
    Ok(())
}

/// Sets the gauges; the probes ask often enough.
fn sample(agent: &Agent) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    agent.metrics.attachments.set(count(agent.ledger.attachment_count()));
    agent.metrics.pending.set(count(agent.recorder.pending()));
    // A pool of which nothing is left here is not shown with its last numbers.
    agent.metrics.addresses.clear();
    let pools: BTreeSet<String> = agent.ledger.blocks().into_iter().map(|block| block.pool).collect();
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

fn on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping; routes and pods stay as they are");
        signalled.cancel();
    });
    Ok(stop)
}
