//! `IPAssignment`: one address, or pair, held by one attachment.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Who holds the address. Immutable.
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
    doc = "An address, or a pair, and the attachment (container and interface) that holds it. Its name is the address."
)]
#[serde(rename_all = "camelCase")]
pub struct IPAssignmentSpec {
    /// The pool that the address is of.
    pub pool_name: String,
    /// The block that the address is of.
    pub block_name: String,
    /// The node whose agent wrote this.
    pub node_name: String,
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The IPv6 address, in canonical text (RFC 5952).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// The attachment's container ID (CNI_CONTAINERID).
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The attachment's interface in the container (CNI_IFNAME).
    pub if_name: String,
    /// The pod's namespace; absent when the runtime named no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The pod's UID.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// When the address was assigned (RFC 3339).
    pub created_at: MicroTime,
    /// The boot of the node in which the address was assigned.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}
