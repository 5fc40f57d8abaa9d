//! Network namespaces: comparing two of them, and moving a thread into one.
//!
//! Only this file calls `setns`, and only on a plain thread that ends afterwards. If a pooled thread stayed in one
//! pod's namespace, the thread would later wire another pod into that same namespace.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::netlink::KernelError;

/// A reference from the agent's network namespace to a container's network namespace. The reference stays valid when
/// the agent restarts, but not when the node reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRef {
    /// The ID by which the agent's network namespace refers to the container's namespace. As soon as a namespace ends,
    /// the kernel may reuse the namespace's ID.
    pub id: i32,
    /// `SO_NETNS_COOKIE` of the agent's namespace at the time of the ADD. If the agent later runs in a namespace with
    /// another cookie, `id` is meaningless.
    pub cookie: u64,
}

/// Device and inode number of a network namespace. Two identities are equal only if they belong to the same namespace.
pub(crate) type Identity = (u64, u64);

/// The identity of the network namespace that a file descriptor refers to.
pub(crate) fn identity(netns: impl AsFd) -> Result<Identity, KernelError> {
    let stat =
        fstat(netns).map_err(|errno| KernelError::io("read the identity of a network namespace")(errno.into()))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The identity of the calling thread's network namespace.
pub(crate) fn current() -> Result<Identity, KernelError> {
    let file = File::open("/proc/thread-self/ns/net").map_err(KernelError::io("open /proc/thread-self/ns/net"))?;
    identity(&file)
}

/// Whether a file descriptor refers to the calling thread's own network namespace.
///
/// # Errors
/// Fails if the identity of either namespace can't be read. The caller must then change nothing in the namespace,
/// because it may be the node's own.
pub fn is_own_netns(netns: impl AsFd) -> Result<bool, KernelError> {
    Ok(identity(netns)? == current()?)
}

/// Moves the calling thread into a network namespace. The thread never returns to the old namespace, so the caller must
/// run on a thread that [`on_thread`] started.
#[allow(clippy::disallowed_methods)]
pub(crate) fn enter(netns: impl AsFd) -> Result<(), KernelError> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::io("enter the network namespace")(errno.into()))
}

/// Runs a closure on a new plain thread that ends when the closure returns. The closure runs to its end even if the
/// caller stops waiting.
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
    let lost =
        || KernelError::io("finish a network operation")(std::io::Error::other("the operation's thread ended early"));
    result.await.unwrap_or_else(|_| Err(lost().into()))
}
