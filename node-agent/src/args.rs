//! The agent's settings: flags, environment variables and defaults. This module has no side effects.

pub mod timing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_crds::pool::DEFAULT_MAX_ADDRESSES_PER_NODE;
use bobbin_observability::{LogFormat, LogLevel};
use bobbin_process::{DurationError, parse_duration, parse_duration_up_to};
use clap::{Parser, ValueEnum};

/// The upper limit of the flags that set how long an ADD waits. The plugin waits 60 s for the answer to an ADD, and the other steps of the
/// ADD need the remaining 10 s.
const MAX_ADD_WAIT: Duration = Duration::from_secs(50);

fn parse_add_wait(text: &str) -> Result<Duration, DurationError> {
    parse_duration_up_to(text, MAX_ADD_WAIT)
}

/// Assigns addresses to the pods of this node and programs their routes.
#[derive(Parser, Clone, Debug)]
#[command(name = "bobbin-agent", version)]
pub struct Args {
    /// The name of the agent's own Node object.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The name of the agent's own pod. The agent writes the name into the lock file of the run directory. An agent that waits for the lock
    /// logs this name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The kubeconfig file for the API server. Without this flag, the agent uses $KUBECONFIG or, if that is not set, the pod's service
    /// account.
    #[arg(long, env = "BOBBIN_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The directory of the agent's sockets and checkpoint. The checkpoint survives a restart of the agent but not a reboot of the node.
    #[arg(long, env = "BOBBIN_RUN_DIR", default_value = "/run/bobbin")]
    pub run_dir: PathBuf,
    /// The file with the ID of the current boot.
    #[arg(long, env = "BOBBIN_BOOT_ID_PATH", default_value = "/proc/sys/kernel/random/boot_id")]
    pub boot_id_path: PathBuf,
    /// How long an ADD waits for the confirmation of its IPAssignment if the API server has not recently confirmed that the node owns the
    /// block. The ownership is unconfirmed after the agent starts, after a watch breaks or is silent, and after a duplicate address. At
    /// most 50s; the chart accepts at most 5s. After the agent starts, an ADD first waits up to 300 ms for the agent's first read of its
    /// blocks. If the read takes longer, this wait is part of the flag's time. Two waits do not depend on this flag. If other nodes may
    /// have IPAssignments in the block, the ADD waits up to 5 s for the confirmation. If the address already has an IPAssignment, every
    /// ADD waits up to 1 s more, until the agent has read the IPAssignment's owner.
    #[arg(long, env = "BOBBIN_CONFIRM_WAIT", default_value = "450ms", value_parser = parse_add_wait)]
    pub confirm_wait: Duration,
    /// How long the operator waits after the deletion of a Node before it releases the node's blocks and addresses. The operator's flag
    /// must have the same value. An agent that was down for more than half of this time reads its blocks before it assigns addresses.
    #[arg(long, env = "BOBBIN_NODE_GRACE_PERIOD", default_value = "5m", value_parser = parse_duration)]
    pub node_grace_period: Duration,
    /// Multiplies the waits of the protocol between agent, operator and API server. For tests only.
    #[arg(long, env = "BOBBIN_TIME_SCALE", default_value_t = 1.0, hide = true)]
    pub time_scale: f64,
    /// How long an ADD waits for an address if the node has no free address in the pod's pool. At most 50s, because the plugin gives an ADD
    /// a minute.
    #[arg(long, env = "BOBBIN_ADD_TIMEOUT", default_value = "30s", value_parser = parse_add_wait)]
    pub add_timeout: Duration,
    /// How long a block stays empty before the node releases it. The node keeps the last block of a pool. If the pool has no free block,
    /// the node releases its empty blocks sooner, including the last one.
    #[arg(long, env = "BOBBIN_BLOCK_IDLE", default_value = "300s", value_parser = parse_duration)]
    pub block_idle: Duration,
    /// How many addresses the node's blocks of one pool may have together. Does not apply to pools with maxBlocksPerNode. The operator has the same
    /// flag, and denies further claims to a node that exceeds the operator's value.
    #[arg(long, env = "BOBBIN_MAX_ADDRESSES_PER_NODE", default_value_t = DEFAULT_MAX_ADDRESSES_PER_NODE)]
    pub max_addresses_per_node: u32,
    /// What an ADD does if the API server is unreachable and the agent does not know the pod. Regardless of this flag, an ADD of a static
    /// pod continues if the agent knows the pod's namespace.
    #[arg(long, env = "BOBBIN_UNKNOWN_POD", default_value = "refuse", value_enum)]
    pub unknown_pod: UnknownPod,
    /// The program that writes the routes between nodes. With `none`, a routing daemon imports the export table. With `direct`, the agent
    /// writes the routes, and all nodes must be on one flat network.
    #[arg(long, env = "BOBBIN_ROUTING", default_value = "none", value_enum)]
    pub routing: Routing,
    /// The kernel routing table of the pod routes.
    #[arg(long, env = "BOBBIN_POD_TABLE", default_value_t = 116)]
    pub pod_table: u32,
    /// The kernel routing table with the routes of the claimed blocks. Routing daemons import the routes of this table.
    #[arg(long, env = "BOBBIN_EXPORT_TABLE", default_value_t = 119)]
    pub export_table: u32,
    /// The priority of the routing rule that leads to the pod table.
    #[arg(long, env = "BOBBIN_RULE_PRIORITY", default_value_t = 2000)]
    pub rule_priority: u32,
    /// The protocol number of Bobbin's routes and rules.
    #[arg(long, env = "BOBBIN_PROTOCOL", default_value_t = 30)]
    pub protocol: u8,
    /// The protocol number of the direct routes in the main table.
    #[arg(long, env = "BOBBIN_DIRECT_PROTOCOL", default_value_t = 31)]
    pub direct_protocol: u8,
    /// The link group of the host side of the pods' veth pairs.
    #[arg(long, env = "BOBBIN_LINK_GROUP", default_value_t = 116)]
    pub link_group: u32,
    /// The prefix of the interface names on the host side of the pods' veth pairs.
    #[arg(long, env = "BOBBIN_VETH_PREFIX", default_value = "bob")]
    pub veth_prefix: String,
    /// The name of Bobbin's nftables table (family inet).
    #[arg(long, env = "BOBBIN_NFT_TABLE", default_value = "bobbin")]
    pub nft_table: String,
    /// The pods' MTU. Without this flag, each new pod gets the uplink's MTU.
    #[arg(long, env = "BOBBIN_MTU")]
    pub mtu: Option<u32>,
    /// The directory of the writable sysctl tree.
    #[arg(long, env = "BOBBIN_SYSCTL_ROOT", default_value = "/proc/sys/net")]
    pub sysctl_root: PathBuf,
    /// The address and port at which the agent answers requests for metrics, health and its status document. Without this flag, the agent opens no port.
    #[arg(long, env = "BOBBIN_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// Install the CNI plugin and the CNI configuration.
    #[arg(long, env = "BOBBIN_INSTALL")]
    pub install: bool,
    /// The directory in which the container runtime looks for CNI plugins.
    #[arg(long, env = "BOBBIN_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// The directory in which the container runtime looks for CNI configurations.
    #[arg(long, env = "BOBBIN_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// The executable of the CNI plugin to install.
    #[arg(long, env = "BOBBIN_SHIM_PATH", default_value = "/usr/local/bin/bobbin")]
    pub shim_path: PathBuf,
    /// The highest CNI version that the agent writes into the CNI configuration. If a chained plugin does not support this version, the
    /// agent uses a lower one.
    #[arg(long, env = "BOBBIN_CNI_VERSION", default_value = "1.1.0")]
    pub cni_version: String,
    /// The configurations of the CNI plugins that run after Bobbin's plugin, as a JSON list.
    #[arg(long, env = "BOBBIN_CHAINED", default_value = "[]")]
    pub chained: String,
    /// The agent's task: `run` gives the node's pods their network, and `remove` removes everything that the agent installed on the node.
    #[arg(long, env = "BOBBIN_MODE", default_value = "run", value_enum)]
    pub mode: Mode,
    /// Do not wait for the node's pods to end; only for `--mode=remove`. The agent then removes the pods' interfaces and releases the pods'
    /// addresses.
    #[arg(long, env = "BOBBIN_FORCE")]
    pub force: bool,
    /// How often the agent checks for attachments whose network namespace or pod is gone.
    #[arg(long, env = "BOBBIN_STALE_CHECK_INTERVAL", default_value = "60s", value_parser = parse_duration)]
    pub stale_check_interval: Duration,
    /// How often the agent compares blocks, assignments and node addresses with the API server when no watch reports a change.
    #[arg(long, env = "BOBBIN_RELIST_INTERVAL", default_value = "15m", value_parser = parse_duration)]
    pub relist_interval: Duration,
    /// The format of log lines: text or json.
    #[arg(long, env = "BOBBIN_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The level of the log: error, warn, info, debug, trace or off. Or directives such as info,bobbin_node_agent::cni=debug.
    #[arg(long, env = "BOBBIN_LOG_LEVEL", default_value_t = LogLevel::default())]
    pub log_level: LogLevel,
    /// A directory with level files, for example a mounted ConfigMap. The agent reads its level from the file `agent.NODE_NAME` or, if that
    /// file does not exist or is empty, from the file `agent`. This level replaces the flag --log-level. A change of the file takes effect
    /// without a restart.
    #[arg(long, env = "BOBBIN_LOG_LEVEL_DIR")]
    pub log_level_dir: Option<PathBuf>,
}

/// What an ADD does when the pod's pool is unknown.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPod {
    /// Fail with CNI error code 11, so that the container runtime repeats the ADD.
    Refuse,
    /// Use the namespace's pool. If the agent does not know the namespace, use the pool `default`.
    Default,
}

/// Who programs the routes between nodes.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// A routing daemon imports Bobbin's export table and programs the routes.
    None,
    /// The agent programs the routes. All nodes must be on one flat network.
    Direct,
}

/// What the agent does on its node (`--mode`).
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Give the node's pods their network.
    Run,
    /// Remove from the node what the agent installed.
    Remove,
}

#[cfg(test)]
mod tests;
