//! The operator's settings: flags, their environment variables and defaults. Nothing here acts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_observability::LogFormat;
use bobbin_process::parse_duration;
use clap::Parser;

/// Carves address pools into blocks, keeps their status, and takes back what deleted nodes leave.
#[derive(Parser, Clone, Debug)]
#[command(name = "bobbin-operator", version)]
pub struct Args {
    /// The kubeconfig to reach the API server with; absent: KUBECONFIG, else the pod's service account.
    #[arg(long, env = "BOBBIN_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "bobbin-system")]
    pub namespace: String,
    /// What tells this operator from the other: the name of its pod.
    #[arg(long, env = "POD_NAME", default_value = "bobbin-operator")]
    pub identity: String,
    /// Where metrics and health are served; absent: nowhere.
    #[arg(long, env = "BOBBIN_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// How many seconds a Node must be gone before its addresses are free, unless it gave them up or was out of service.
    #[arg(long, env = "BOBBIN_NODE_GONE_SECONDS", default_value_t = 300)]
    pub node_gone_seconds: u64,
    /// Another operator may lead when it has seen no sign of this one for that long.
    #[arg(long, env = "BOBBIN_LEASE_DURATION", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,
    /// This operator stops leading when it could not renew the Lease for that long.
    #[arg(long, env = "BOBBIN_RENEW_DEADLINE", default_value = "10s", value_parser = parse_duration)]
    pub renew_deadline: Duration,
    /// How often the Lease is renewed, or looked at.
    #[arg(long, env = "BOBBIN_RETRY_PERIOD", default_value = "2s", value_parser = parse_duration)]
    pub retry_period: Duration,
    /// Work without asking who leads.
    #[arg(long, env = "BOBBIN_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,
    /// How often mere counts of a pool's status are written, at most. Longer by itself where many nodes watch many pools.
    #[arg(long, env = "BOBBIN_STATUS_INTERVAL", default_value = "5s", value_parser = parse_duration)]
    pub status_interval: Duration,
    /// How log lines look: text or json.
    #[arg(long, env = "BOBBIN_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
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
    fn the_defaults_stand() {
        let args = Args::try_parse_from(["bobbin-operator"]).expect("no flag is required");
        assert_eq!((args.node_gone_seconds, args.status_interval), (300, Duration::from_secs(5)));
    }
}
