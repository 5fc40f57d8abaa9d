//! Installs, maintains and removes the files on the host: the CNI plugin, the CNI configuration and the run directory.

mod conflist;
pub(crate) mod install;
pub(crate) mod run_dir;
pub(crate) mod uninstall;
