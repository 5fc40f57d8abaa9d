//! Network namespaces: comparing two of them, and moving a thread into one.
//!
//! Only this file calls `setns`, and only on a plain thread that ends afterwards. If a pooled thread stayed in a pod's
//! namespace, it would wire the next pod into that namespace.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::netlink::KernelError;

/// A container's network namespace, as the agent's namespace refers to it. The reference stays valid when the agent
/// restarts, but not when the node reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRef {
    /// The ID by which the agent's network namespace refers to the container's namespace. When a namespace ends, the
    /// kernel may reuse its ID at once.
    pub id: i32,
    /// `SO_NETNS_COOKIE` of the agent's namespace. If the agent now runs in a namespace with another cookie, the
    /// namespace ID is meaningless.
    pub cookie: u64,
}

/// Device and inode number of a network namespace. Two identities are equal only if they are of the same namespace.
pub(crate) type Identity = (u64, u64);

/// The identity of the network namespace that a descriptor refers to.
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

/// Whether a descriptor refers to the calling thread's own network namespace.
///
/// # Errors
/// Fails if the kernel does not tell the identity of one of the two namespaces. The descriptor may then lead to the node's
/// own namespace, so the caller must change nothing in it.
pub fn is_own_netns(netns: impl AsFd) -> Result<bool, KernelError> {
    Ok(identity(netns)? == current()?)
}

/// Moves the calling thread into a network namespace for good. So the caller must run on a thread that [`on_thread`]
/// started.
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
