//! Starts the operator: clients, watches, leader election, one reconciler per pool, the cleanup tasks, metrics and health.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bobbin_api_client::lease::{Election, Leadership};
use bobbin_api_client::{Clients, UnreadableNotice, connect};
use bobbin_observability::{Health, Metrics, Server, Watchdog, init_logs};
use bobbin_process::{refuse_renamed_variables, shutdown_on_signal};
use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::cache::{Cache, watches};
use crate::context::{Context, LOOP_DEADLINE};
use crate::denied_nodes::DeniedNodes;
use crate::events::Events;
use crate::metrics::OperatorMetrics;
use crate::times::Times;
use crate::{deleted_nodes, denied_nodes, pod_comparison, pool, void_assignments};

/// How often the leadership loop of an active operator checks whether this operator still leads.
const ACTIVE_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the leadership loop of a standby checks whether this operator leads.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A standby keeps its events about unreadable objects. This is how often it checks whether it leads and may publish them.
const NOTICE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stopping operator tries to release the Lease.
const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a watch may fail before the operator becomes unready.
const MAX_WATCH_FAILURE: Duration = Duration::from_secs(30);

/// Runs the operator as a program, until the process receives SIGTERM or SIGINT.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = Args::try_parse_from(args).unwrap_or_else(|error| error.exit());
    let logs = init_logs(args.log_format, &args.log_level);
    if let Some(directory) = &args.log_level_dir {
        tokio::spawn(logs.follow(directory.clone(), vec!["operator".to_owned()]));
    }
    refuse_renamed_variables()?;
    let stop = shutdown_on_signal("stopping")?;
    operate(args, stop).await
}

/// Runs the operator until `stop` is cancelled. It keeps running while the API server is unreachable or another operator
/// leads.
pub async fn operate(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let user_agent = concat!("bobbin-operator/", env!("CARGO_PKG_VERSION"));
    let clients = connect(args.kubeconfig.as_deref(), user_agent).await.context("the operator can't start")?;
    let metrics = OperatorMetrics::default();
    let mut page = Metrics::default();
    let watchdog = Watchdog::default();
    metrics.register(&mut page, &clients.metrics, watchdog.clone());

    let cache = Arc::new(Cache::default());
    let mut tasks = JoinSet::new();
    let (notices, unreadable) = mpsc::unbounded_channel();
    let watches = watches::start(&clients, &cache, &mut tasks, &notices);
    let (leadership, election) = join_election(&args, &clients, &stop);
    let (set_active, active) = watch::channel(false);
    let context = Arc::new(Context {
        events: Events::new(clients.requests.clone(), &args.identity),
        watchdog,
        clients,
        cache,
        watches,
        metrics,
        surplus: pool::SurplusQueue::default(),
        passes: pool::PassHealth::default(),
        node_grace_period: args.node_grace_period,
        reclaim_hold: args.reclaim_hold,
        status_interval: args.status_interval,
        max_addresses_per_node: args.max_addresses_per_node,
        times: Times::new(args.time_scale),
        namespace: args.namespace.clone(),
        denied: DeniedNodes::default(),
        leadership,
        active,
    });
    tasks.spawn(follow_leadership(Arc::clone(&context), set_active));
    tasks.spawn(report_unreadable(Arc::clone(&context), unreadable));
    tasks.spawn(deleted_nodes::run(Arc::clone(&context)));
    tasks.spawn(void_assignments::run(Arc::clone(&context)));
    tasks.spawn(pod_comparison::run(Arc::clone(&context), args.pod_comparison_interval));
    tasks.spawn(denied_nodes::run(Arc::clone(&context)));
    tasks.spawn(pool::run_all(Arc::clone(&context)));
    tasks.spawn(pool::surplus::run(Arc::clone(&context)));
    if let Some(address) = args.metrics_address {
        let (context, stop) = (Arc::clone(&context), stop.clone());
        let server = Server::new(Arc::new(page), Arc::new(move || health(&context)));
        tasks.spawn(async move { server.serve_at(address, |_| {}, stop.cancelled_owned()).await });
    }
    tracing::info!(identity = args.identity, "the operator has started");
    // A task ends early only if the task panics. The program then ends, so that the kubelet restarts the container.
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(task) = tasks.join_next() => {
                if let Err(error) = task {
                    break Err(anyhow::anyhow!("a task of the operator panicked, so the operator stops and the kubelet restarts it: {error}"));
                }
            }
        }
    };
    tasks.shutdown().await;
    stop.cancel();
    if let Some(election) = election {
        let _ = tokio::time::timeout(LEASE_RELEASE_TIMEOUT, election).await;
    }
    ended
}

/// Starts the leader election. If `--no-leader-election` is set, this operator always leads.
///
/// Bobbin implements the election itself, because the library kube has none. An operator that loses the Lease continues
/// as a standby. The election only avoids duplicate work: two operators that lead at once do no harm.
fn join_election(
    args: &Args,
    clients: &Clients,
    stop: &CancellationToken,
) -> (watch::Receiver<Leadership>, Option<JoinHandle<()>>) {
    if args.no_leader_election {
        return (watch::channel(Leadership::permanent()).1, None);
    }
    let election = Election {
        name: "bobbin-operator".to_owned(),
        namespace: args.namespace.clone(),
        identity: args.identity.clone(),
        duration: args.lease_duration,
        renew_deadline: args.renew_deadline,
        retry_period: args.retry_period,
    };
    let (leadership, task) = election.run(clients.requests.clone(), stop.clone().cancelled_owned());
    (leadership, Some(task))
}

/// Tells all tasks when this operator becomes active or becomes a standby. Also updates the gauges about leadership,
/// watches and passes.
async fn follow_leadership(context: Arc<Context>, set_active: watch::Sender<bool>) {
    let mut leadership = context.leadership.clone();
    let beat = context.watchdog.register("role", LOOP_DEADLINE);
    loop {
        beat.beat();
        let active = context.is_leader() && context.watches.synced();
        context.metrics.is_leader.set(i64::from(context.is_leader()));
        context.metrics.set_unreadable(context.cache.unreadable.counts());
        let nodes = context.cache.with(|index| index.linux_nodes());
        context.metrics.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        let failing = context.watches.failing().map_or(0.0, |(_, time)| time.as_secs_f64());
        context.metrics.watch_failing_seconds.set(failing);
        context.metrics.reconcile_failing_seconds.set(context.passes.failing_seconds(Instant::now()));
        if set_active.send_if_modified(|before| std::mem::replace(before, active) != active) {
            context.cache.notify_all();
        }
        // No notification arrives when leadership expires or when a watch has completed its first LIST request, so the loop
        // also polls.
        let wait = if active { ACTIVE_POLL_INTERVAL } else { STANDBY_POLL_INTERVAL };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { tokio::time::sleep(wait).await },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Publishes an event about each unreadable object as soon as this operator leads.
async fn report_unreadable(context: Arc<Context>, mut notices: mpsc::UnboundedReceiver<UnreadableNotice>) {
    while let Some(notice) = notices.recv().await {
        while !context.is_leader() {
            tokio::time::sleep(NOTICE_RETRY_INTERVAL).await;
        }
        context.events.unreadable(notice.object, &notice.text).await;
    }
    // The watches have ended, so the program is about to end. Wait for its end.
    std::future::pending::<()>().await;
}

fn health(context: &Context) -> Health {
    Health::of(&context.watchdog, ready(context))
}

/// Whether the operator is ready. Failing watches and failing reconcile passes make the operator unready. The liveness
/// check does not fail, because a restart would repair neither the watches nor the passes.
fn ready(context: &Context) -> Result<(), String> {
    if !context.watches.synced() {
        return Err("the watch cache does not contain all watched objects yet".to_owned());
    }
    match context.watches.failing() {
        Some((kind, time)) if time > MAX_WATCH_FAILURE => Err(format!(
            "the watch of {kind} objects has failed for {} s: check that the operator can reach the API server",
            time.as_secs()
        )),
        _ => context.passes.check(Instant::now()),
    }
}
