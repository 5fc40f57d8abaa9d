//! The names of all files and directories under the run directory.

pub use bobbin_cni_wire::READY_MARKER;

/// Locked by the running agent.
pub const LOCK: &str = "lock";
/// Which node the checkpoint belongs to, and when its agent last ran.
pub const IDENTITY: &str = "agent.json";
/// The socket that the CNI plugin calls.
pub const SOCKET: &str = "agent.sock";
/// The socket that answers probes.
pub const HEALTH_SOCKET: &str = "health.sock";
/// The prefix of the directories that receive another node's checkpoint.
pub const OTHER_NODE_PREFIX: &str = "other-node-";

/// Which boot the checkpoint belongs to.
pub const BOOT: &str = "boot";
/// The node's blocks with their states.
pub const BLOCKS: &str = "blocks.json";
/// The cluster objects that the watches last showed.
pub const CLUSTER_SNAPSHOT: &str = "cluster.json";
/// One file per attachment.
pub const ATTACHMENTS: &str = "attachments";
/// One file per cooling address.
pub const COOLING: &str = "cooling";
/// One file per address that is excluded from allocation.
pub const CONFLICTS: &str = "conflicts";
/// One file per assignment that must still be deleted.
pub const PENDING_DELETIONS: &str = "deletions";

/// Directories that version 0.1.0 named differently, with their names of today.
pub const RENAMED_DIRECTORIES: [(&str, &str); 2] = [("resting", COOLING), ("passed-over", CONFLICTS)];

/// The directories of the checkpoint: an uninstall removes them.
pub const CHECKPOINT_DIRECTORIES: [&str; 4] = [ATTACHMENTS, PENDING_DELETIONS, COOLING, CONFLICTS];
/// The files of the checkpoint: an uninstall removes them.
pub const CHECKPOINT_FILES: [&str; 3] = [BLOCKS, CLUSTER_SNAPSHOT, BOOT];
