//! The names of all files and directories under the run directory.

pub use bobbin_cni_wire::READY_MARKER;

/// The lock file, which the running agent locks.
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

/// The directories that version 0.1.0 named differently: the old name and the current name.
pub const RENAMED_DIRECTORIES: [(&str, &str); 2] = [("resting", COOLING), ("passed-over", CONFLICTS)];

/// The directories of the checkpoint, which an uninstall removes.
pub const CHECKPOINT_DIRECTORIES: [&str; 4] = [ATTACHMENTS, PENDING_DELETIONS, COOLING, CONFLICTS];
/// The files of the checkpoint, which an uninstall removes.
pub const CHECKPOINT_FILES: [&str; 3] = [BLOCKS, CLUSTER_SNAPSHOT, BOOT];
