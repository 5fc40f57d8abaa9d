//! The names of all files and directories under the run directory.

pub use bobbin_cni_wire::READY_MARKER;

/// The lock file. The running agent holds a lock on this file.
pub const LOCK: &str = "lock";
/// The file that says which node the checkpoint belongs to, and when that node's agent last ran.
pub const IDENTITY: &str = "agent.json";
/// The socket that the CNI plugin calls.
pub const SOCKET: &str = "agent.sock";
/// The socket on which the agent answers health probes.
pub const HEALTH_SOCKET: &str = "health.sock";
/// The prefix of the directories into which the agent moves the checkpoint of another node.
pub const OTHER_NODE_PREFIX: &str = "other-node-";

/// The file that says which boot the checkpoint belongs to.
pub const BOOT: &str = "boot";
/// The file with the node's blocks and their states.
pub const BLOCKS: &str = "blocks.json";
/// The file with the cluster objects that the watches last showed.
pub const CLUSTER_SNAPSHOT: &str = "cluster.json";
/// The directory with one file per attachment.
pub const ATTACHMENTS: &str = "attachments";
/// The directory with one file per cooling address.
pub const COOLING: &str = "cooling";
/// The directory with one file per address that is excluded from allocation.
pub const CONFLICTS: &str = "conflicts";
/// The directory with one file per assignment that the agent must still delete.
pub const PENDING_DELETIONS: &str = "deletions";

/// The directories that had other names in version 0.1.0. Each pair has the old name and the current name.
pub const RENAMED_DIRECTORIES: [(&str, &str); 2] = [("resting", COOLING), ("passed-over", CONFLICTS)];

/// The checkpoint's directories. An uninstall removes them.
pub const CHECKPOINT_DIRECTORIES: [&str; 4] = [ATTACHMENTS, PENDING_DELETIONS, COOLING, CONFLICTS];
/// The checkpoint's files. An uninstall removes them.
pub const CHECKPOINT_FILES: [&str; 3] = [BLOCKS, CLUSTER_SNAPSHOT, BOOT];
