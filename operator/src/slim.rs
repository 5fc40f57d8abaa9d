//! The kinds as the operator's watches read them: what it needs and nothing more, so that 50,000 of them pass through a
//! small memory, and so that a field it does not read can't break it. Never written back.

use bobbin_crds::IPAssignment;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// The taint of a node whose machine is known to be off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// An `IPAssignment`.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "IPAssignment")]
pub(crate) struct SlimAssignment {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: SlimAssignmentSpec,
}

/// Who holds the address.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SlimAssignmentSpec {
    pub(crate) pool_name: String,
    pub(crate) block_name: String,
    pub(crate) node_name: String,
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
    pub(crate) pod_namespace: Option<String>,
    pub(crate) pod_name: Option<String>,
    #[serde(rename = "podUID")]
    pub(crate) pod_uid: Option<String>,
}

/// A `Node`.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Node")]
pub(crate) struct SlimNode {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimNodeSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SlimNodeSpec {
    #[serde(default)]
    taints: Vec<SlimTaint>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimTaint {
    key: String,
}

impl SlimNode {
    /// Whether somebody has said that the machine is off.
    pub(crate) fn out_of_service(&self) -> bool {
        self.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }
}
