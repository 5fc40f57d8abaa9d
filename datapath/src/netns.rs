//! Network namespaces: telling them apart and entering one.
//!
//! Only this file calls `setns`, and only on a plain thread that ends afterwards. A pooled thread that stays in a pod's
//! namespace would wire the next pod into it.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::netlink::KernelError;

/// A network namespace as the agent's own namespace sees it: still valid after the agent restarts, not after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRef {
    /// The ID that the observing namespace has for it. The kernel reuses the IDs of ended namespaces at once.
    pub id: i32,
    /// `SO_NETNS_COOKIE` of the observing namespace, the agent's. Under another cookie the ID means nothing.
    pub cookie: u64,
}

/// Device and inode: equal only for the same namespace.
pub(crate) type Identity = (u64, u64);

/// The namespace that a descriptor refers to.
pub(crate) fn identity(netns: impl AsFd) -> Result<Identity, KernelError> {
    let stat =
        fstat(netns).map_err(|errno| KernelError::io("read the identity of a network namespace")(errno.into()))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The calling thread's namespace.
pub(crate) fn current() -> Result<Identity, KernelError> {
    let file = File::open("/proc/thread-self/ns/net").map_err(KernelError::io("open /proc/thread-self/ns/net"))?;
    identity(&file)
}

/// Whether a descriptor refers to the calling thread's own namespace.
///
/// # Errors
/// The identity of one of the two can't be read. The caller must not touch a namespace that may be the node's.
pub fn is_own_netns(netns: impl AsFd) -> Result<bool, KernelError> {
    Ok(identity(netns)? == current()?)
}

/// Moves the calling thread for good. It must be a thread of [`on_thread`].
#[allow(clippy::disallowed_methods)]
pub(crate) fn enter(netns: impl AsFd) -> Result<(), KernelError> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::io("enter the network namespace")(errno.into()))
}

/// Runs a closure on a new plain thread, which ends with it. It runs to its end even if the caller stops waiting.
pub(crate) async fn on_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<KernelError> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let run = move || drop(done.send(work()));
    std::thread::Builder::new()
        .name("bobbin-datapath".to_owned())
        .stack_size(512 << 10)
        .spawn(run)
        .map_err(KernelError::io("start a thread"))?;
    let lost = || KernelError::io("finish work on a thread")(std::io::Error::other("the thread ended early"));
    result.await.unwrap_or_else(|_| Err(lost().into()))
}
