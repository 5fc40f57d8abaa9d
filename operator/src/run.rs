//! Puts the operator together: settings, clients, watches, leadership, a keeper per pool, the tasks for nodes and sweeps, and
//! the page of metrics and health. `bobbin-all` calls `run`, tests call `operate`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bobbin_api_client::lease::{Election, Leadership};
use bobbin_api_client::{Clients, UnreadableNotice, connect};
use bobbin_observability::{Health, Metrics, Server, Watchdog, init_logs};
use bobbin_process::shutdown_on_signal;
use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::events::Events;
use crate::feed::{self, Ages, Board};
use crate::metrics::OperatorMetrics;
use crate::{keeper, reclaim, sweep};

/// How long a loop that turns at least every 30 s may go without a turn before it counts as hanging.
const LOOP_DEADLINE: Duration = Duration::from_mins(2);

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) clients: Clients,
    pub(crate) board: Arc<Board>,
    pub(crate) ages: Ages,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) events: Events,
    /// Which loops make progress.
    pub(crate) watchdog: Watchdog,
    pub(crate) node_gone: Duration,
    pub(crate) status_interval: Duration,
    leadership: watch::Receiver<Leadership>,
    role: watch::Receiver<bool>,
}

impl Shared {
    /// Whether this operator leads at this moment.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.borrow().held()
    }

    /// Whether it leads and has seen all there is once.
    pub(crate) fn may_act(&self) -> bool {
        *self.role.borrow() && self.leads()
    }

    /// Waits until this operator may act, or may no more.
    pub(crate) async fn changed_roles(&self) {
        let mut role = self.role.clone();
        let _ = tokio::time::timeout(Duration::from_secs(1), role.changed()).await;
    }
}

/// Runs the operator as a program, until SIGTERM or SIGINT.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = Args::try_parse_from(args).unwrap_or_else(|error| error.exit());
    init_logs(args.log_format);
    let stop = shutdown_on_signal("stopping")?;
    operate(args, stop).await
}

/// Runs the operator until `stop`. It does not end because the API server is away or another operator leads.
pub async fn operate(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let agent = concat!("bobbin-operator/", env!("CARGO_PKG_VERSION"));
    let clients = connect(args.kubeconfig.as_deref(), agent).await.context("the operator can't start")?;
    let metrics = OperatorMetrics::default();
    let mut page = Metrics::default();
    metrics.register(page.registry());

    let board = Arc::new(Board::default());
    let mut tasks = JoinSet::new();
    let (notices, unreadable) = mpsc::unbounded_channel();
    let ages = feed::start(&clients, &board, &mut tasks, &notices);
    let (leadership, election) = stand(&args, &clients, &stop);
    let (tell_role, role) = watch::channel(false);
    let shared = Arc::new(Shared {
        events: Events::new(clients.requests.clone(), &args.identity),
        watchdog: Watchdog::default(),
        clients,
        board,
        ages,
        metrics,
        node_gone: Duration::from_secs(args.node_gone_seconds),
        status_interval: args.status_interval,
        leadership,
        role,
    });
    tasks.spawn(follow_role(Arc::clone(&shared), tell_role));
    tasks.spawn(tell_unreadable(Arc::clone(&shared), unreadable));
    tasks.spawn(reclaim::run(Arc::clone(&shared)));
    tasks.spawn(sweep::run(Arc::clone(&shared)));
    tasks.spawn(keep_pools(Arc::clone(&shared)));
    if let Some(address) = args.metrics_address {
        let (asked, stop) = (Arc::clone(&shared), stop.clone());
        let server = Server::new(Arc::new(page), Arc::new(move || health(&asked)));
        tasks.spawn(async move { server.serve_at(address, |_| {}, stop.cancelled_owned()).await });
    }
    tracing::info!(identity = args.identity, "the operator runs");
    // Every task runs for ever: one that ends has panicked, and the program ends with it, to be started anew.
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(task) = tasks.join_next() => {
                if let Err(error) = task {
                    break Err(anyhow::anyhow!("a task of the operator ended: {error}"));
                }
            }
        }
    };
    tasks.shutdown().await;
    stop.cancel();
    if let Some(election) = election {
        // Lets go of the lease.
        let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    }
    ended
}

fn stand(
    args: &Args,
    clients: &Clients,
    stop: &CancellationToken,
) -> (watch::Receiver<Leadership>, Option<tokio::task::JoinHandle<()>>) {
    if args.no_leader_election {
        return (watch::channel(Leadership::for_ever()).1, None);
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

/// Tells everybody when this operator begins or ceases to act.
async fn follow_role(shared: Arc<Shared>, tell: watch::Sender<bool>) {
    let mut leadership = shared.leadership.clone();
    let beat = shared.watchdog.register("role", LOOP_DEADLINE);
    loop {
        beat.beat();
        let acts = shared.leads() && shared.ages.synced();
        shared.metrics.leads.set(i64::from(shared.leads()));
        shared.metrics.unreadable(shared.board.unreadable.counts());
        shared.metrics.watch_failing.set(shared.ages.failing().map_or(0.0, |(_, time)| time.as_secs_f64()));
        if tell.send_if_modified(|before| std::mem::replace(before, acts) != acts) {
            shared.board.wake_all();
        }
        // Leadership also lapses without anybody saying so, and the watches say nothing here.
        let nap = if acts { Duration::from_millis(500) } else { Duration::from_millis(50) };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { tokio::time::sleep(nap).await },
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Publishes events about objects that can't be read, once this operator leads.
async fn tell_unreadable(shared: Arc<Shared>, mut notices: mpsc::UnboundedReceiver<UnreadableNotice>) {
    while let Some(notice) = notices.recv().await {
        while !shared.leads() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        shared.events.about(notice.object, "Unreadable", "Decode", &notice.text);
    }
    // The watches have ended, and the program ends with them.
    std::future::pending::<()>().await;
}

/// Starts a keeper for each pool that comes, and ends it when nothing of the pool is left.
async fn keep_pools(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut keepers: HashMap<Arc<str>, (AbortHandle, Option<Instant>)> = HashMap::new();
    let beat = shared.watchdog.register("pools", LOOP_DEADLINE);
    loop {
        beat.beat();
        let kept = shared.board.facts(|facts| facts.kept());
        for name in &kept {
            let started = keepers
                .entry(Arc::clone(name))
                .or_insert_with(|| (tasks.spawn(keeper::keep(Arc::clone(&shared), Arc::clone(name))), None));
            started.1 = None;
        }
        // A pool of the same name may come again at once, with a write of the old keeper still under way: its keeper stays a while.
        for (name, (keeper, idle)) in &mut keepers {
            if !kept.contains(name) && idle.get_or_insert_with(Instant::now).elapsed() > Duration::from_mins(1) {
                keeper.abort();
            }
        }
        keepers.retain(|name, (keeper, _)| {
            let ended = keeper.is_finished();
            if ended {
                shared.metrics.no_pool(name);
                shared.board.no_bell(name);
            }
            !ended
        });
        tokio::select! {
            () = shared.board.population.notified() => {}
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "the keeper of a pool failed and begins anew");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
    }
}

fn health(shared: &Shared) -> Health {
    Health::of(&shared.watchdog, ready(shared))
}

/// The API server being away is no reason to be restarted: it would not help.
fn ready(shared: &Shared) -> Result<(), String> {
    if !shared.ages.synced() {
        return Err("the operator has not seen all pools, blocks, assignments and nodes yet".to_owned());
    }
    match shared.ages.failing() {
        Some((kind, time)) if time > Duration::from_secs(30) => {
            Err(format!("the watch of {kind} has been failing for {} s", time.as_secs()))
        }
        _ => Ok(()),
    }
}
