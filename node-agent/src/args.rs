//! The agent's settings: flags, their environment variables and defaults. Nothing here acts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_observability::LogFormat;
use bobbin_process::parse_duration;
use clap::{Parser, ValueEnum};

/// Gives the pods of this node their addresses and routes.
#[derive(Parser, Clone, Debug)]
#[command(name = "bobbin-agent", version)]
pub struct Args {
    /// The name of the Node object that this agent serves.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The name of the agent's own pod, for another agent that waits for the run directory.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The kubeconfig to reach the API server with; absent: KUBECONFIG, else the pod's service account.
    #[arg(long, env = "BOBBIN_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The directory of the socket and of what must outlive the agent, but not a reboot.
    #[arg(long, env = "BOBBIN_RUN_DIR", default_value = "/run/bobbin")]
    pub run_dir: PathBuf,
    /// The file with the identity of this boot.
    #[arg(long, env = "BOBBIN_BOOT_ID_PATH", default_value = "/proc/sys/kernel/random/boot_id")]
    pub boot_id_path: PathBuf,
    /// How long an ADD waits for the answer to its record when the API server's recent word does not prove that its block is this node's:
    /// after a start of the agent, a broken or silent watch, a duplicate. From a proven block it does not wait. What an ADD has waited for
    /// the first read of an agent that starts counts, too. If another record has the address, any ADD waits up to 1 s more to read it.
    #[arg(long, env = "BOBBIN_CONFIRM_WAIT", default_value = "450ms", value_parser = parse_duration)]
    pub confirm_wait: Duration,
    /// How long the operator waits before it frees what a deleted node held; an agent that was away for more than half of it asks the API
    /// server before it assigns.
    #[arg(long, env = "BOBBIN_NODE_GONE_SECONDS", default_value_t = 300)]
    pub node_gone_seconds: u64,
    /// Multiplies the protocol's own waits. For tests.
    #[arg(long, env = "BOBBIN_TIME_SCALE", default_value_t = 1.0, hide = true)]
    pub time_scale: f64,
    /// How long an ADD waits for an address when its pool is full.
    #[arg(long, env = "BOBBIN_HOLD_ADD", default_value = "30s", value_parser = parse_duration)]
    pub hold_add: Duration,
    /// How long a block stays empty before it goes back, the last one of a pool apart.
    #[arg(long, env = "BOBBIN_BLOCK_IDLE", default_value = "300s", value_parser = parse_duration)]
    pub block_idle: Duration,
    /// What a pod gets that can't be read because the API server is unreachable. A static pod is never refused if its namespace is known.
    #[arg(long, env = "BOBBIN_UNKNOWN_POD", default_value = "refuse", value_enum)]
    pub unknown_pod: UnknownPod,
    /// Routes between nodes: by any routing daemon that imports the export table, or directly on one flat network.
    #[arg(long, env = "BOBBIN_ROUTING", default_value = "none", value_enum)]
    pub routing: Routing,
    /// The kernel table of the pod routes.
    #[arg(long, env = "BOBBIN_POD_TABLE", default_value_t = 116)]
    pub pod_table: u32,
    /// The kernel table of the claimed blocks, for routing daemons to import.
    #[arg(long, env = "BOBBIN_EXPORT_TABLE", default_value_t = 119)]
    pub export_table: u32,
    /// The priority of the rule that leads to the pod table.
    #[arg(long, env = "BOBBIN_RULE_PRIORITY", default_value_t = 2000)]
    pub rule_priority: u32,
    /// The protocol number of our routes and rules.
    #[arg(long, env = "BOBBIN_PROTOCOL", default_value_t = 30)]
    pub protocol: u8,
    /// The protocol number of the direct routes in the main table.
    #[arg(long, env = "BOBBIN_DIRECT_PROTOCOL", default_value_t = 31)]
    pub direct_protocol: u8,
    /// The link group of the host side of our veth pairs.
    #[arg(long, env = "BOBBIN_LINK_GROUP", default_value_t = 116)]
    pub link_group: u32,
    /// The beginning of the name of the host side of our veth pairs.
    #[arg(long, env = "BOBBIN_VETH_PREFIX", default_value = "bob")]
    pub veth_prefix: String,
    /// The name of our nftables table (family inet).
    #[arg(long, env = "BOBBIN_NFT_TABLE", default_value = "bobbin")]
    pub nft_table: String,
    /// The pods' MTU; absent: the uplink's, followed when it changes.
    #[arg(long, env = "BOBBIN_MTU")]
    pub mtu: Option<u32>,
    /// Where the writable sysctl tree is.
    #[arg(long, env = "BOBBIN_SYSCTL_ROOT", default_value = "/proc/sys/net")]
    pub sysctl_root: PathBuf,
    /// Where metrics and health are served; absent: nowhere.
    #[arg(long, env = "BOBBIN_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// Install the plugin and the CNI configuration.
    #[arg(long, env = "BOBBIN_INSTALL")]
    pub install: bool,
    /// Where the runtime looks for plugins.
    #[arg(long, env = "BOBBIN_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Where the runtime looks for configurations.
    #[arg(long, env = "BOBBIN_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// The plugin's executable to install.
    #[arg(long, env = "BOBBIN_SHIM_PATH", default_value = "/usr/local/bin/bobbin")]
    pub shim_path: PathBuf,
    /// The highest CNI version that the configuration names; lowered when a chained plugin does not know it.
    #[arg(long, env = "BOBBIN_CNI_VERSION", default_value = "1.1.0")]
    pub cni_version: String,
    /// Plugins to chain behind ours, a JSON list of their configurations.
    #[arg(long, env = "BOBBIN_CHAINED", default_value = "[]")]
    pub chained: String,
    /// Run, or remove what the agent put on the node.
    #[arg(long, env = "BOBBIN_MODE", default_value = "run", value_enum)]
    pub mode: Mode,
    /// With `--mode=remove`: do not wait for the last attachment.
    #[arg(long, env = "BOBBIN_FORCE")]
    pub force: bool,
    /// How often the agent looks for attachments whose network namespace or pod is gone.
    #[arg(long, env = "BOBBIN_SWEEP_INTERVAL", default_value = "60s", value_parser = parse_duration)]
    pub sweep_interval: Duration,
    /// How often blocks, records and node addresses are compared with the API server when nothing changed.
    #[arg(long, env = "BOBBIN_RELIST_INTERVAL", default_value = "15m", value_parser = parse_duration)]
    pub relist_interval: Duration,
    /// How log lines look: text or json.
    #[arg(long, env = "BOBBIN_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What a pod gets whose pool is unknown.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPod {
    /// An error that the runtime retries (CNI code 11).
    Refuse,
    /// An address of the pool `default`.
    Default,
}

/// Who routes between nodes.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Any daemon that imports the export table.
    None,
    /// The agent itself, over one flat network.
    Direct,
}

/// What the agent is here for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serve the node's pods.
    Run,
    /// Take away what the agent put on the node.
    Remove,
}

#[cfg(test)]
mod tests;
