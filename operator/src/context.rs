//! What the operator's tasks share: clients, the watch cache, metrics, events, settings, and whether this operator leads.

use std::sync::Arc;
use std::time::Duration;

use bobbin_api_client::Clients;
use bobbin_api_client::lease::Leadership;
use bobbin_observability::Watchdog;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::cache::watches::WatchHealth;
use crate::events::Events;
use crate::metrics::OperatorMetrics;

/// A task that waits for its role to change checks it at least this often.
const ROLE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What all tasks of the operator share.
pub(crate) struct Context {
    pub(crate) clients: Clients,
    pub(crate) cache: Arc<Cache>,
    pub(crate) watches: WatchHealth,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) events: Events,
    /// The loops that liveness checks.
    pub(crate) watchdog: Watchdog,
    /// How long a Node must be gone before the operator releases what it owns.
    pub(crate) node_grace_period: Duration,
    pub(crate) status_interval: Duration,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// True while this operator leads and every watch has synced.
    pub(crate) active: watch::Receiver<bool>,
}

impl Context {
    /// Whether this operator is the leader now. Leadership also lapses by time, so ask before each step.
    pub(crate) fn is_leader(&self) -> bool {
        self.leadership.borrow().held()
    }

    /// Whether this operator leads and every watch has synced.
    pub(crate) fn is_active(&self) -> bool {
        *self.active.borrow() && self.is_leader()
    }

    /// Returns soon after `is_active` may have changed.
    pub(crate) async fn role_change(&self) {
        let mut active = self.active.clone();
        let _ = tokio::time::timeout(ROLE_POLL_INTERVAL, active.changed()).await;
    }
}
