//! The cluster that all tests of this suite share.

use std::time::Duration;

use anyhow::Result;
use bobbin_crds::AddressPool;
use bobbin_e2e::cluster::{Cluster, ClusterOptions, Pool};
use bobbin_e2e::suite::Suite;

/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(4);
/// The grace period of a deleted node, in seconds.
pub const NODE_GRACE_PERIOD: u64 = 8;
/// How long a node keeps an empty block, in seconds.
pub const BLOCK_IDLE: u64 = 5;
/// The chart's values for these tests. The grace periods are short, so that the tests need not wait long.
pub const VALUES: [&str; 4] =
    ["agent.blockIdle=5s", "operator.nodeGracePeriod=8s", "agent.staleCheckInterval=4s", "operator.statusInterval=1s"];

/// Creates the suite whose tests share one cluster.
pub fn suite() -> Result<Suite<Cluster>> {
    Ok(Suite::new(start)?.with_timeout(TEST_TIMEOUT))
}

/// The pool `default`, which serves all namespaces.
pub fn default_pool() -> AddressPool {
    Pool::named("default").subnet("10.64.0.0/20", "fd00:64::/116").build()
}

async fn start() -> Result<Cluster> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.install(&VALUES).await?;
    cluster.apply(default_pool()).await?;
    cluster.await_condition(default_pool(), "Ready", "True", Duration::from_secs(30)).await?;
    Ok(cluster)
}
