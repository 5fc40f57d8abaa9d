//! The few facts that the agent keeps of a Node, a pod and a namespace. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_api_client::lenient::Unreadable;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::POOL_ANNOTATION;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

/// The annotation by which the API server's copy of a static pod names the UID that kubelet uses for it.
const MIRROR_UID: &str = "kubernetes.io/config.hash";

/// The Node of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its UID; another one under the same name is another Node.
    pub uid: String,
    /// Its first internal IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its first internal IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It carries the taint `node.kubernetes.io/out-of-service`.
    #[serde(default)]
    pub out_of_service: bool,
    /// Its condition Ready is True.
    #[serde(default)]
    pub ready: bool,
}

impl NodeFacts {
    /// The fields of a block that name the node's addresses, and what they should say.
    pub fn addresses(&self) -> [(&'static str, Option<String>); 2] {
        [
            ("nodeIPv4", self.ipv4.map(|address| address.to_string())),
            ("nodeIPv6", self.ipv6.map(|address| address.to_string())),
        ]
    }

    /// What counts of a Node.
    ///
    /// # Errors
    /// The object can't be read.
    pub fn of(node: &Lenient<PartialNode>) -> Result<NodeFacts, Box<Unreadable>> {
        let node = match node {
            Lenient::Readable(node) => node,
            Lenient::Unreadable(unreadable) => return Err(unreadable.clone()),
        };
        let internal = || node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        Ok(NodeFacts {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ipv4: internal().find_map(|address| address.address.parse().ok()),
            ipv6: internal().find_map(|address| address.address.parse().ok()),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            out_of_service: node.out_of_service(),
            ready: node.is_ready(),
        })
    }
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID of the object.
    pub uid: String,
    /// The UID that kubelet, and so K8S_POD_UID, uses for it, where that is another: a mirror pod's.
    pub kubelet_uid: Option<String>,
    /// The pool that its annotation names; an empty annotation counts as absent.
    pub pool: Option<String>,
}

impl PodFacts {
    /// What counts of a pod's metadata.
    pub fn of(metadata: &ObjectMeta) -> PodFacts {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
        PodFacts {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            kubelet_uid: annotation(MIRROR_UID).cloned(),
            pool: annotation(POOL_ANNOTATION).filter(|pool| !pool.is_empty()).cloned(),
        }
    }

    /// Whether this is the pod that the runtime calls by `uid`. A StatefulSet's next pod of the same name is not.
    pub fn is(&self, uid: &str) -> bool {
        self.uid == uid || self.kubelet_uid.as_deref() == Some(uid)
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The pool that its annotation names; an empty annotation counts as absent.
    pub pool: Option<String>,
}

impl NamespaceFacts {
    /// What counts of a namespace's metadata.
    pub fn of(metadata: &ObjectMeta) -> NamespaceFacts {
        let annotation = metadata.annotations.as_ref().and_then(|all| all.get(POOL_ANNOTATION));
        NamespaceFacts {
            labels: metadata.labels.clone().unwrap_or_default(),
            pool: annotation.filter(|pool| !pool.is_empty()).cloned(),
        }
    }
}
