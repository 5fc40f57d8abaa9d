//! The host's files: the CNI plugin, the CNI configuration and the run directory, and their removal.

mod conflist;
pub(crate) mod install;
pub(crate) mod run_dir;
pub(crate) mod uninstall;
