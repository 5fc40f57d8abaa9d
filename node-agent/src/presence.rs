//! Whether an attachment's network namespace and host link are still there. A stand-in: `bobbin_kernel` gets types of the same names and
//! `Network::presence`; until then only the link is looked at, and no namespace is ever found gone.

use std::collections::{HashMap, HashSet};

use bobbin_addressing::AttachmentKey;
use bobbin_kernel::{KernelError, Network};
use serde::{Deserialize, Serialize};

/// A network namespace by its ID, as one observer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRef {
    /// The ID that the kernel gave it.
    pub id: i32,
    /// The cookie of the namespace from which the ID was read: IDs differ by observer.
    pub cookie: u64,
}

/// What the kernel has of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)]
pub enum Presence {
    /// The host link is there.
    Linked,
    /// The host link is gone, and so is the namespace.
    NetnsGone,
    /// The host link is gone, the namespace is there.
    Broken,
    /// The host link is there, the namespace's ID is gone: the interface was moved to another namespace.
    Moved,
    /// The kernel could not tell.
    Unknown,
}

/// What the kernel has of each attachment.
pub async fn presence(
    network: &Network,
    asked: Vec<(AttachmentKey, Option<NetnsRef>)>,
) -> Result<HashMap<AttachmentKey, Presence>, KernelError> {
    let linked: HashSet<AttachmentKey> = network.links().await?.into_iter().map(|link| link.key).collect();
    let of = |key: &AttachmentKey| if linked.contains(key) { Presence::Linked } else { Presence::Unknown };
    Ok(asked.into_iter().map(|(key, _)| (key.clone(), of(&key))).collect())
}
