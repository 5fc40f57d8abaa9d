//! What the agent puts on the host: the plugin, the CNI configuration and the run directory; and how it takes them away.

mod conflist;
pub(crate) mod install;
pub(crate) mod run_dir;
pub(crate) mod uninstall;
