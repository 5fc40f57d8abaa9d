//! The operator's flags, their environment variables and their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_crds::pool::DEFAULT_MAX_ADDRESSES_PER_NODE;
use bobbin_observability::{LogFormat, LogLevel};
use bobbin_process::parse_duration;
use clap::Parser;

/// Carves address pools into blocks, reports the status of pools, and releases the blocks and addresses of deleted nodes.
#[derive(Parser, Clone, Debug)]
#[command(name = "bobbin-operator", version)]
pub struct Args {
    /// The kubeconfig for the API server. By default, the operator uses the file in $KUBECONFIG. If $KUBECONFIG is not set,
    /// it uses the pod's service account.
    #[arg(long, env = "BOBBIN_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the operator's Lease and ConfigMaps.
    #[arg(long, env = "POD_NAMESPACE", default_value = "bobbin-system")]
    pub namespace: String,
    /// The name of this operator's pod. The leader writes this name into the Lease.
    #[arg(long, env = "POD_NAME", default_value = "bobbin-operator")]
    pub identity: String,
    /// The address and port for metrics and health checks. Without this flag, the operator serves neither metrics nor
    /// health checks.
    #[arg(long, env = "BOBBIN_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// How long the operator waits after the deletion of a Node before it releases the node's blocks and addresses. If the
    /// Node had the out-of-service taint, the operator does not wait.
    #[arg(long, env = "BOBBIN_NODE_GRACE_PERIOD", default_value = "5m", value_parser = parse_duration)]
    pub node_grace_period: Duration,
    /// How long the operator keeps the blocks of deleted nodes if many Nodes were deleted together. Many means at least
    /// three Nodes, and more than one tenth of the nodes with blocks or assignments, within one grace period.
    #[arg(long, env = "BOBBIN_RECLAIM_HOLD", default_value = "1h", value_parser = parse_duration)]
    pub reclaim_hold: Duration,
    /// Another operator may take the Lease when the leader has not renewed it for this long.
    #[arg(long, env = "BOBBIN_LEASE_DURATION", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,
    /// This operator stops leading when it has failed to renew the Lease for this long.
    #[arg(long, env = "BOBBIN_RENEW_DEADLINE", default_value = "10s", value_parser = parse_duration)]
    pub renew_deadline: Duration,
    /// How often the leader renews the Lease, and how often a standby reads it.
    #[arg(long, env = "BOBBIN_RETRY_PERIOD", default_value = "2s", value_parser = parse_duration)]
    pub retry_period: Duration,
    /// Turns the leader election off. This operator then always leads.
    #[arg(long, env = "BOBBIN_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,
    /// The minimum time between two writes of a pool's counts. In clusters with many nodes and pools, the operator waits
    /// longer.
    #[arg(long, env = "BOBBIN_STATUS_INTERVAL", default_value = "5s", value_parser = parse_duration)]
    pub status_interval: Duration,
    /// How many addresses the blocks of one node may have in a pool without maxBlocksPerNode. If a node exceeds this number and claims
    /// further blocks, the operator denies the node. The agents have the same flag.
    #[arg(long, env = "BOBBIN_MAX_ADDRESSES_PER_NODE", default_value_t = DEFAULT_MAX_ADDRESSES_PER_NODE)]
    pub max_addresses_per_node: u32,
    /// Multiplies how long the operator waits before it deletes void assignments or denies nodes. For tests only.
    #[arg(long, env = "BOBBIN_TIME_SCALE", default_value_t = 1.0, hide = true)]
    pub time_scale: f64,
    /// How often the operator compares all assignments with all pods.
    #[arg(long, env = "BOBBIN_POD_COMPARISON_INTERVAL", default_value = "5m", value_parser = parse_duration)]
    pub pod_comparison_interval: Duration,
    /// The format of log lines: text or json.
    #[arg(long, env = "BOBBIN_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The level of the log: error, warn, info, debug, trace or off. Or directives such as info,bobbin_node_agent::cni=debug.
    #[arg(long, env = "BOBBIN_LOG_LEVEL", default_value_t = LogLevel::default())]
    pub log_level: LogLevel,
    /// A directory with level files, for example a mounted ConfigMap. A level in the file `operator` replaces the flag
    /// --log-level. The level follows the file without a restart.
    #[arg(long, env = "BOBBIN_LOG_LEVEL_DIR")]
    pub log_level_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_log_format_is_refused_with_the_choices() {
        let refused = Args::try_parse_from(["bobbin-operator", "--log-format=xml"]).map(drop).unwrap_err().to_string();
        assert!(refused.contains("--log-format") && refused.contains("text or json"), "{refused}");
    }

    #[test]
    fn no_flag_is_required() {
        let args = Args::try_parse_from(["bobbin-operator"]).expect("no flag is required");
        assert_eq!((args.node_grace_period, args.status_interval), (Duration::from_mins(5), Duration::from_secs(5)));
    }

    #[test]
    fn a_grace_period_without_a_unit_is_refused() {
        let refused =
            Args::try_parse_from(["bobbin-operator", "--node-grace-period=300"]).map(drop).unwrap_err().to_string();
        assert!(refused.contains("--node-grace-period") && refused.contains("for example 30s"), "{refused}");
    }
}
