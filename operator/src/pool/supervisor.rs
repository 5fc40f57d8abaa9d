//! Starts a reconciler for each pool, and ends it some time after the pool and all blocks of the pool are deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use super::reconciler;
use crate::context::{Context, LOOP_DEADLINE};

/// How often the supervisor compares the pools with the running reconcilers if no notification arrives.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// How long the reconciler of a deleted pool keeps running, so that the reconciler's last writes end before the supervisor
/// aborts the task. If a pool with the same name is created meanwhile, the reconciler reconciles the new pool.
const RECONCILER_LINGER: Duration = Duration::from_mins(1);
/// How long the supervisor waits after the panic of a reconciler before it starts the reconciler again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

struct Running {
    task: AbortHandle,
    /// When the supervisor first found the pool and all its blocks deleted. `None` while the pool or a block of it exists.
    idle_since: Option<Instant>,
}

/// Runs the reconcilers of all pools. Never returns.
pub(crate) async fn run_all(context: Arc<Context>) {
    let mut tasks = JoinSet::new();
    let mut reconcilers: HashMap<Arc<str>, Running> = HashMap::new();
    let beat = context.watchdog.register("pools", LOOP_DEADLINE);
    loop {
        beat.beat();
        let pools = context.cache.with(|index| index.reconciled_pools());
        for name in &pools {
            let start = || reconciler::run(Arc::clone(&context), Arc::clone(name));
            let running = reconcilers
                .entry(Arc::clone(name))
                .or_insert_with(|| Running { task: tasks.spawn(start()), idle_since: None });
            running.idle_since = None;
        }
        for (name, running) in &mut reconcilers {
            let is_idle = !pools.contains(name);
            if is_idle && running.idle_since.get_or_insert_with(Instant::now).elapsed() > RECONCILER_LINGER {
                running.task.abort();
            }
        }
        reconcilers.retain(|name, running| {
            let ended = running.task.is_finished();
            if ended {
                context.metrics.remove_pool(name);
                context.cache.remove_pool_notify(name);
                context.passes.forget(name);
            }
            !ended
        });
        tokio::select! {
            () = context.cache.pool_set_changed.notified() => {}
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "the reconciler of a pool panicked; the operator starts it again");
                    tokio::time::sleep(RESTART_DELAY).await;
                }
            }
            () = tokio::time::sleep(RESYNC_INTERVAL) => {}
        }
    }
}
