//! A Pod with only the fields that Bobbin's programs use, and the annotations of mirror pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::node::null_is_empty;

/// The annotation that marks a mirror pod: the API object that the kubelet creates for a static pod. Mirror pod and
/// static pod have different UIDs. The annotation's value is the static pod's UID, which the kubelet and the container
/// runtime use.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Another annotation of a mirror pod. Its value is the static pod's UID, too.
pub const MIRROR_UID: &str = "kubernetes.io/config.hash";

/// A Pod with only the fields that Bobbin uses. Read it as `Lenient<PartialPod>`.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "Pod")]
pub struct PartialPod {
    /// Namespace, name, UID and annotations of the Pod.
    pub metadata: ObjectMeta,
    /// The status that the Pod's kubelet reports.
    #[serde(default)]
    pub status: PartialPodStatus,
}

/// The status that a Pod's kubelet reports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialPodStatus {
    /// The addresses of the Pod, at most one of each family.
    #[serde(rename = "podIPs", default, deserialize_with = "null_is_empty")]
    pub pod_ips: Vec<PartialPodIp>,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct PartialPodIp {
    /// The address.
    #[serde(default)]
    pub ip: String,
}

impl PartialPod {
    /// Returns the addresses that the Pod's status shows. Skips texts that are not addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.status.pod_ips.iter().filter_map(|one| one.ip.parse().ok()).collect()
    }

    /// For a mirror pod, returns the UID of its static pod. In a CNI call, `K8S_POD_UID` has this UID.
    pub fn static_pod_uid(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(MIRROR_UID).map(String::as_str)
    }
}
