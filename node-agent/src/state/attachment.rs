//! An attachment and what is kept of it under the run directory. Pure data.

use bobbin_datapath::NetnsRef;
use bobbin_ipam::{AttachmentKey, IpPair};
use serde::{Deserialize, Serialize};

/// The pod of an attachment; each field is empty when the runtime named none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
}

impl PodRef {
    /// Whether kubelet has the pod from a file: the UID is a plain hash then, where the API server's have the form of RFC 4122.
    pub fn is_static(&self) -> bool {
        !self.uid.is_empty() && !self.uid.contains('-')
    }
}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// ADD has not answered yet.
    Adding,
    /// ADD has answered.
    Live,
    /// DEL has begun.
    Deleting,
}

/// One container's interface and the address it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Container ID and interface name.
    pub key: AttachmentKey,
    /// The address, or the pair.
    pub pair: IpPair,
    /// The block that it is of; empty when a restart could not find out.
    pub block: String,
    /// The pool that it is of.
    pub pool: String,
    /// The pod.
    pub pod: PodRef,
    /// Whether the API server once showed this agent a pod of that very UID: only then its absence proves anything. Never for a static
    /// pod.
    #[serde(default)]
    pub pod_seen: bool,
    /// When the address was assigned.
    pub created_at: jiff::Timestamp,
    /// The boot in which it was assigned.
    pub boot_id: String,
    /// The UID of its record at the API server, once that is confirmed.
    pub assignment_uid: Option<String>,
    /// How far it has come.
    pub phase: Phase,
    /// The container's network namespace, as the runtime named it.
    pub netns: Option<String>,
    /// `name` of the network configuration of its ADD; absent if nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What ADD answered about the links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
}

impl Attachment {
    /// Whether it should have a record at the API server: its ADD was answered, no DEL has begun, and it has an address.
    pub fn needs_record(&self) -> bool {
        self.phase == Phase::Live && self.pair != IpPair::default()
    }

    /// Whose it is, in words: `pod shop/web`, or the container if the runtime named no pod.
    pub fn who(&self) -> String {
        match self.pod.name.as_str() {
            "" => format!("container {}", self.key),
            name => format!("pod {}/{name}", self.pod.namespace),
        }
    }
}

/// Whose these attachments are, in words: the first few, and how many more.
pub fn first_names(attachments: &[Attachment]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = attachments.iter().map(Attachment::who).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", names.join(", "))
}

/// The two ends of the attachment's veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The name on the host.
    pub host_if: String,
    /// The hardware address on the host.
    pub host_mac: String,
    /// The hardware address in the container.
    pub container_mac: String,
    /// The MTU of both, in bytes.
    pub mtu: u32,
    /// The container's network namespace as the kernel knows it; `None`: it can't be recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsRef>,
}
