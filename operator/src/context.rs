//! The values that the operator's tasks share: clients, cache, metrics, events, settings, and whether this operator leads.

use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_api_client::lease::Leadership;
use bobbin_observability::Watchdog;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::cache::watches::WatchHealth;
use crate::denied_nodes::DeniedNodes;
use crate::events::Events;
use crate::metrics::OperatorMetrics;
use crate::pool::{PassHealth, SurplusQueue};
use crate::times::Times;

/// How long one write to the API server may take.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of writes that one task has in flight at the same time.
pub(crate) const MAX_CONCURRENT_WRITES: usize = 16;
/// The liveness probe of the operator fails when a loop makes no progress for this long.
pub(crate) const LOOP_DEADLINE: Duration = Duration::from_mins(2);

/// How often a task that waits for a change of leadership checks whether this operator leads.
const ROLE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The values that all tasks of the operator share.
pub(crate) struct Context {
    pub(crate) clients: Clients,
    pub(crate) cache: Arc<Cache>,
    pub(crate) watches: WatchHealth,
    pub(crate) metrics: OperatorMetrics,
    /// Free blocks that no node needs any more.
    pub(crate) surplus: SurplusQueue,
    /// Whether a reconcile pass of some pool takes too long, or the passes of some pool keep failing.
    pub(crate) passes: PassHealth,
    pub(crate) events: Events,
    /// The registry of loops that must make progress. The liveness probe checks this registry.
    pub(crate) watchdog: Watchdog,
    /// How long the operator waits after the deletion of a Node before it releases the node's blocks and assignments.
    pub(crate) node_grace_period: Duration,
    /// How long the operator keeps the blocks of nodes that were deleted together, if nobody confirms the deletion.
    pub(crate) reclaim_hold: Duration,
    pub(crate) status_interval: Duration,
    /// How many addresses the blocks of one node may have in a pool without `maxBlocksPerNode`.
    pub(crate) max_addresses_per_node: u32,
    pub(crate) times: Times,
    /// The namespace of the operator's own objects.
    pub(crate) namespace: String,
    pub(crate) denied: DeniedNodes,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Whether this operator leads and every watch has listed its objects once.
    pub(crate) active: watch::Receiver<bool>,
}

impl Context {
    /// Whether this operator is the leader now. Callers check this before each step, because leadership ends if the
    /// operator fails to renew the Lease in time.
    pub(crate) fn is_leader(&self) -> bool {
        self.leadership.borrow().held()
    }

    /// Whether this operator leads and every watch has listed its objects once.
    pub(crate) fn is_active(&self) -> bool {
        *self.active.borrow() && self.is_leader()
    }

    /// Waits until the result of `is_active` may have changed.
    pub(crate) async fn role_change(&self) {
        next_change(&self.active).await;
    }
}

/// Waits until the value changes, at most [`ROLE_POLL_INTERVAL`].
async fn next_change(value: &watch::Receiver<bool>) {
    let mut value = value.clone();
    // The receiver may not have seen an earlier change. Without `mark_unchanged`, that earlier change would end the wait at
    // once.
    value.mark_unchanged();
    let _ = tokio::time::timeout(ROLE_POLL_INTERVAL, value.changed()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_earlier_change_does_not_end_the_wait_for_the_next_one() {
        let (sender, receiver) = watch::channel(false);
        sender.send_replace(true);
        let waited = tokio::time::timeout(Duration::from_millis(50), next_change(&receiver)).await;
        assert!(waited.is_err(), "the wait ended although nothing changed");
        let (waited, _) = tokio::join!(tokio::time::timeout(ROLE_POLL_INTERVAL / 2, next_change(&receiver)), async {
            sender.send_replace(false)
        });
        assert!(waited.is_ok(), "the change did not end the wait");
    }
}
