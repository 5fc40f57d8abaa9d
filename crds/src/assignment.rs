//! `IPAssignment`: the address, or address pair, of one attachment. The agent of the pod's node creates and deletes the
//! object.

mod rules;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::cel::{self, Family};

/// The address, and the attachment that holds the address. The spec is immutable.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "bobbin.dev",
    version = "v1beta1",
    kind = "IPAssignment",
    plural = "ipassignments",
    shortname = "ipa",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.poolName",
    selectable = ".spec.blockName",
    selectable = ".spec.podNamespace",
    selectable = ".spec.podName",
    selectable = ".spec.podUID",
    selectable = ".spec.ipv6",
    category = "bobbin",
    printcolumn(name = "IPv4", type_ = "string", json_path = ".spec.ipv4", description = "The IPv4 address"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".spec.ipv6", description = "The IPv6 address"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.podNamespace", description = "The pod's namespace"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".spec.podName", description = "The pod that holds the address"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName", description = "The pod's node"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolName", description = "The pool of the address"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the address was assigned"),
    validation = rules::name(),
    doc = "An address or an address pair, with the attachment (container and interface) that holds it. The object is named after the address."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = cel::immutable("an IPAssignment is immutable: delete it and create another one"),
    validation = cel::any_family("an assignment")
)]
pub struct IPAssignmentSpec {
    /// The pool of the address.
    #[schemars(length(min = 1, max = 63))]
    pub pool_name: String,
    /// The block of the address.
    #[schemars(length(min = 1, max = 253))]
    pub block_name: String,
    /// The pod's node. The agent of this node writes this object.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = cel::address(Family::V4))]
    pub ipv4: Option<String>,
    /// The IPv6 address in canonical form (RFC 5952).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 39))]
    #[x_kube(validation = cel::address(Family::V6))]
    pub ipv6: Option<String>,
    /// The attachment's container ID (CNI_CONTAINERID).
    #[serde(rename = "containerID")]
    #[schemars(length(min = 1, max = 256))]
    pub container_id: String,
    /// The attachment's interface in the container (CNI_IFNAME).
    #[schemars(length(min = 1, max = 15))]
    pub if_name: String,
    /// The pod's namespace; absent if the container runtime named no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pod_namespace: Option<String>,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// The pod's UID.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub pod_uid: Option<String>,
    /// When the address was assigned (RFC 3339).
    #[serde(deserialize_with = "crate::time::unreadable_as_future")]
    pub created_at: MicroTime,
    /// The boot ID that the node had when the address was assigned.
    #[serde(rename = "bootID")]
    #[schemars(length(max = 128))]
    pub boot_id: String,
}

/// Whether this is the UID of a static pod. The kubelet's UID of a static pod is a hash without hyphens. The API server's
/// UIDs have the form of RFC 4122, with hyphens.
pub fn is_static_pod(uid: &str) -> bool {
    !uid.is_empty() && !uid.contains('-')
}
