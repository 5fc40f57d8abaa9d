//! An attachment, as it is in the node's state and in the checkpoint. Pure data.

use bobbin_api_client::list_names;
use bobbin_datapath::NetnsRef;
use bobbin_ipam::{AttachmentKey, IpPair};
use serde::{Deserialize, Serialize};

/// The pod of an attachment. A field is empty if the runtime did not pass its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// The pod's namespace (K8S_POD_NAMESPACE).
    pub namespace: String,
    /// The pod's name (K8S_POD_NAME).
    pub name: String,
    /// The pod's UID (K8S_POD_UID).
    pub uid: String,
}

impl PodRef {
    /// Returns the pod's name for messages, such as `pod shop/web`. If the runtime named no pod, returns the container's ID and interface.
    pub fn or_container(&self, key: &AttachmentKey) -> String {
        match self.name.as_str() {
            "" => format!("container {key}"),
            name => format!("pod {}/{name}", self.namespace),
        }
    }

    /// Whether this is a static pod.
    pub fn is_static(&self) -> bool {
        bobbin_crds::is_static_pod(&self.uid)
    }
}

/// The phases of an attachment between ADD and DEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentPhase {
    /// The attachment's ADD has not answered yet.
    Adding,
    /// The attachment's ADD has answered.
    Live,
    /// The attachment's DEL has begun.
    Deleting,
}

/// The key of an attachment and the time of its ADD. The key alone does not identify an attachment, because a later ADD may have the same
/// key.
pub type AttachmentId = (AttachmentKey, jiff::Timestamp);

/// One interface of a container, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container ID and the interface name.
    pub key: AttachmentKey,
    /// The attachment's addresses: at most one IPv4 address and one IPv6 address.
    pub pair: IpPair,
    /// The name of the block that contains the attachment's address. Empty if the agent did not find this block after a restart.
    pub block: String,
    /// The pool of the attachment's address.
    pub pool: String,
    /// The pod of the attachment.
    pub pod: PodRef,
    /// Whether the API server ever showed this agent a pod with this UID. If false, the pod may be running although the API server does not
    /// show the pod. Never true for a static pod.
    #[serde(default)]
    pub pod_seen: bool,
    /// When the attachment's address was allocated.
    pub created_at: jiff::Timestamp,
    /// The ID of the boot in which the attachment's address was allocated.
    pub boot_id: String,
    /// The UID of the attachment's IPAssignment, if the API server has confirmed the IPAssignment.
    pub assignment_uid: Option<String>,
    /// The phase of the attachment between ADD and DEL.
    pub phase: AttachmentPhase,
    /// The path of the container's network namespace, from the runtime.
    pub netns: Option<String>,
    /// The `name` in the network configuration of the attachment's ADD; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The attachment's veth pair, from the result of ADD; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
}

impl Attachment {
    /// Identifies this attachment, even if a later ADD has the same key.
    pub fn id(&self) -> AttachmentId {
        (self.key.clone(), self.created_at)
    }

    /// Whether the attachment should have an IPAssignment. An attachment needs an IPAssignment if its ADD was answered, no DEL has begun,
    /// and the attachment has an address.
    pub fn needs_assignment(&self) -> bool {
        self.phase == AttachmentPhase::Live && self.pair != IpPair::default()
    }

    /// The attachment's owner for messages, such as `pod shop/web`. If the runtime named no pod, the owner is the container.
    pub fn who(&self) -> String {
        self.pod.or_container(&self.key)
    }
}

/// The owners of these attachments for messages: the first five names, and the number of further owners.
pub fn first_names(attachments: &[Attachment]) -> String {
    const MAX_NAMED: usize = 5;
    let mut names: Vec<String> = attachments.iter().map(Attachment::who).collect();
    names.sort();
    names.dedup();
    list_names(names.iter().take(MAX_NAMED), names.len())
}

/// The two ends of the attachment's veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The name of the veth pair's host end.
    pub host_if: String,
    /// The MAC address of the veth pair's host end.
    pub host_mac: String,
    /// The MAC address of the veth pair's container end.
    pub container_mac: String,
    /// The MTU of both ends of the veth pair, in bytes.
    pub mtu: u32,
    /// The identity of the container's network namespace in the kernel; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsRef>,
}
