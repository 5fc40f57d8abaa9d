//! Extracts from Nodes, pods and namespaces the fields that the agent keeps. This module does no I/O.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_api_client::lenient::Unreadable;
use bobbin_api_client::pod::MIRROR_UID;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::POOL_ANNOTATION;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::reflector::Lookup;
use serde::{Deserialize, Serialize};

/// The prefix of Bobbin's annotations.
const DOMAIN: &str = "bobbin.dev/";
/// The largest number of unknown annotations that the agent keeps of one object. Further unknown annotations do not appear in events.
const MAX_UNKNOWN: usize = 4;

/// The Node object of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The Node's name.
    pub name: String,
    /// The Node's UID. Two Nodes with the same name but different UIDs are different Nodes.
    pub uid: String,
    /// The Node's first internal IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The Node's first internal IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The Node's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the Node has the taint `node.kubernetes.io/out-of-service`.
    #[serde(default)]
    pub out_of_service: bool,
    /// Whether the Node's condition Ready is True.
    #[serde(default)]
    pub ready: bool,
}

impl NodeInfo {
    /// The AddressBlock fields for the node's addresses, each with this Node's value.
    pub fn addresses(&self) -> [(&'static str, Option<String>); 2] {
        [
            ("nodeIPv4", self.ipv4.map(|address| address.to_string())),
            ("nodeIPv6", self.ipv6.map(|address| address.to_string())),
        ]
    }

    /// Extracts the fields of a Node.
    ///
    /// # Errors
    /// Fails if the object can't be decoded.
    pub fn of(node: &Lenient<PartialNode>) -> Result<NodeInfo, Box<Unreadable>> {
        let node = match node {
            Lenient::Readable(node) => node,
            Lenient::Unreadable(unreadable) => return Err(unreadable.clone()),
        };
        let internal = || node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        Ok(NodeInfo {
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

/// The annotations in Bobbin's domain that have no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredAnnotations {
    /// Annotations that Bobbin does not know, at most [`MAX_UNKNOWN`].
    pub unknown: Vec<String>,
    /// Whether the annotation that names the pool is empty.
    pub empty_pool: bool,
}

impl IgnoredAnnotations {
    fn of(metadata: &ObjectMeta) -> IgnoredAnnotations {
        let all = || metadata.annotations.iter().flatten();
        let unknown = all().map(|(key, _)| key).filter(|key| key.starts_with(DOMAIN) && *key != POOL_ANNOTATION);
        IgnoredAnnotations {
            unknown: unknown.take(MAX_UNKNOWN).cloned().collect(),
            empty_pool: all().any(|(key, value)| key == POOL_ANNOTATION && value.is_empty()),
        }
    }
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodInfo {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The UID of the pod object.
    pub uid: String,
    /// The UID that kubelet and K8S_POD_UID use for a static pod. Only a mirror pod has this field, and its value differs from `uid`.
    pub kubelet_uid: Option<String>,
    /// The pool in the pod's annotation; an empty annotation counts as absent.
    pub pool: Option<String>,
    /// The pod's annotations that Bobbin ignores.
    #[serde(default)]
    pub ignored: IgnoredAnnotations,
    /// Whether the pod is being deleted.
    #[serde(skip)]
    pub terminating: bool,
}

impl PodInfo {
    /// Extracts the fields of a pod's metadata.
    pub fn of(metadata: &ObjectMeta) -> PodInfo {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
        PodInfo {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            kubelet_uid: annotation(MIRROR_UID).cloned(),
            pool: annotation(POOL_ANNOTATION).filter(|pool| !pool.is_empty()).cloned(),
            ignored: IgnoredAnnotations::of(metadata),
            terminating: metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether `uid` is the UID that the runtime uses for this pod. A recreated StatefulSet pod has the same name, but another UID.
    pub fn is(&self, uid: &str) -> bool {
        self.uid == uid || self.kubelet_uid.as_deref() == Some(uid)
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// The namespace's name. The snapshot stores the name separately.
    #[serde(skip)]
    pub name: String,
    /// The namespace's labels.
    pub labels: BTreeMap<String, String>,
    /// The pool in the namespace's annotation; an empty annotation counts as absent.
    pub pool: Option<String>,
    /// The namespace's annotations that Bobbin ignores.
    #[serde(default)]
    pub ignored: IgnoredAnnotations,
}

impl NamespaceInfo {
    /// Extracts the fields of a namespace's metadata.
    pub fn of(metadata: &ObjectMeta) -> NamespaceInfo {
        let annotation = metadata.annotations.as_ref().and_then(|all| all.get(POOL_ANNOTATION));
        NamespaceInfo {
            name: metadata.name.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            pool: annotation.filter(|pool| !pool.is_empty()).cloned(),
            ignored: IgnoredAnnotations::of(metadata),
        }
    }
}

/// Implements kube's `Lookup` for a type such as `PodInfo`, so that kube's reflector can store its objects by name, namespace and UID.
macro_rules! store_by_name {
    ($info:ty, $object:ty, $namespace:expr, $uid:expr) => {
        impl Lookup for $info {
            type DynamicType = ();

            fn kind(object: &()) -> Cow<'_, str> {
                <$object as Resource>::kind(object)
            }

            fn group(object: &()) -> Cow<'_, str> {
                <$object as Resource>::group(object)
            }

            fn version(object: &()) -> Cow<'_, str> {
                <$object as Resource>::version(object)
            }

            fn plural(object: &()) -> Cow<'_, str> {
                <$object as Resource>::plural(object)
            }

            fn name(&self) -> Option<Cow<'_, str>> {
                Some(self.name.as_str().into())
            }

            fn namespace(&self) -> Option<Cow<'_, str>> {
                let namespace: fn(&Self) -> Option<&str> = $namespace;
                namespace(self).map(Cow::from)
            }

            fn resource_version(&self) -> Option<Cow<'_, str>> {
                None
            }

            fn uid(&self) -> Option<Cow<'_, str>> {
                let uid: fn(&Self) -> Option<&str> = $uid;
                uid(self).map(Cow::from)
            }
        }
    };
}

store_by_name!(PodInfo, Pod, |pod| Some(&pod.namespace), |pod| Some(&pod.uid));
store_by_name!(NamespaceInfo, Namespace, |_| None, |_| None);
