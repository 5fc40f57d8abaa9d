//! Selects the pool from which a pod gets its address, or says why the pod gets no address.

pub mod selector;

use std::collections::BTreeMap;
use std::fmt;

use bobbin_crds::{AddressPool, DEFAULT_POOL};
use bobbin_messages::condition;
use selector::admits;

/// The properties of a pool that the selection depends on.
#[allow(clippy::struct_excessive_bools, reason = "independent flags")]
#[derive(Clone, Copy, Debug)]
pub struct PoolInfo<'a> {
    /// The pool's name.
    pub name: &'a str,
    /// Whether the pool's condition `Ready` is true.
    pub ready: bool,
    /// The message of the pool's condition `Ready`, if the condition is not true.
    pub not_ready_why: Option<&'a str>,
    /// Whether the pool is draining (`spec.draining`).
    pub draining: bool,
    /// Whether the pool is being deleted.
    pub deleting: bool,
    /// Whether the pool's `namespaceSelector` admits the pod's namespace.
    pub admits_namespace: bool,
    /// Whether the pool's `nodeSelector` admits this node.
    pub admits_node: bool,
}

impl<'a> PoolInfo<'a> {
    /// The properties of a pool, for a pod whose namespace and node have these labels.
    pub fn of(
        pool: &'a AddressPool,
        namespace_labels: &BTreeMap<String, String>,
        node_labels: &BTreeMap<String, String>,
    ) -> Self {
        let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == condition::READY);
        Self {
            name: pool.metadata.name.as_deref().unwrap_or_default(),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            not_ready_why: ready.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty()),
            draining: pool.spec.draining,
            deleting: pool.metadata.deletion_timestamp.is_some(),
            admits_namespace: admits(pool.spec.namespace_selector.as_ref(), namespace_labels),
            admits_node: admits(pool.spec.node_selector.as_ref(), node_labels),
        }
    }
}

/// The source of the name of the selected pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectionSource {
    /// The pod's annotation `bobbin.dev/pool`.
    PodAnnotation,
    /// The annotation `bobbin.dev/pool` of the pod's namespace.
    NamespaceAnnotation,
    /// The pool has the same name as the pod's namespace.
    NamespaceName,
    /// Neither the pod nor its namespace selects a pool, so Bobbin uses the pool `default`.
    Default,
}

/// The name of the selected pool, and the source of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSelection {
    /// The name of the selected pool.
    pub pool: String,
    /// The source of the name.
    pub source: SelectionSource,
}

/// The pod gets no address from the selected pool. Bobbin does not use another pool instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_} selects pool {:?}, {why}", selection.pool, source_ = Phrase(selection.source), why = Why(self))]
pub struct SelectionError {
    /// The selected pool, and the source of its name.
    pub selection: PoolSelection,
    /// The pod's namespace, if it is known.
    pub namespace: Option<String>,
    /// Why the pod gets no address from the pool.
    pub reason: UnusableReason,
}

/// Why a pod gets no address from a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnusableReason {
    /// No pool can have this name.
    InvalidName,
    /// No pool has this name.
    Missing,
    /// The pool is being deleted.
    Deleting,
    /// The pool is draining.
    Draining,
    /// The pool's `namespaceSelector` does not admit the pod's namespace.
    NamespaceNotAdmitted,
    /// The pool's `nodeSelector` does not admit this node.
    NodeNotAdmitted,
    /// The pool is not ready. The text is the message of its condition `Ready`.
    NotReady(Option<String>),
}

/// Looks at the sources in their order, and selects the pool of the first source that is set. Fails if the pod can't get an
/// address from this pool.
///
/// An empty annotation counts as absent. `pool` returns the pool with a given name.
pub fn select_pool<'a>(
    pod_annotation: Option<&str>,
    namespace_annotation: Option<&str>,
    namespace: Option<&str>,
    pool: impl Fn(&str) -> Option<PoolInfo<'a>>,
) -> Result<PoolSelection, SelectionError> {
    let (name, source) = if let Some(name) = pod_annotation.filter(|name| !name.is_empty()) {
        (name, SelectionSource::PodAnnotation)
    } else if let Some(name) = namespace_annotation.filter(|name| !name.is_empty()) {
        (name, SelectionSource::NamespaceAnnotation)
    } else if let Some(name) = namespace.filter(|name| *name != DEFAULT_POOL && pool(name).is_some()) {
        (name, SelectionSource::NamespaceName)
    } else {
        (DEFAULT_POOL, SelectionSource::Default)
    };
    let selection = PoolSelection { pool: name.to_owned(), source };
    let reason = if is_pool_name(name) { refused(pool(name)) } else { Some(UnusableReason::InvalidName) };
    match reason {
        None => Ok(selection),
        Some(reason) => Err(SelectionError { selection, namespace: namespace.map(ToOwned::to_owned), reason }),
    }
}

/// The rule for pool names, as a part of messages.
pub const POOL_NAME_RULE: &str =
    "a pool name has at most 63 lower-case letters, digits and '-', and begins and ends with a letter or digit";

/// Whether the API server accepts this name for a pool. The name must be a DNS label.
pub fn is_pool_name(name: &str) -> bool {
    let alphanumeric = |letter: &u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|letter| alphanumeric(letter) || *letter == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

fn refused(info: Option<PoolInfo<'_>>) -> Option<UnusableReason> {
    let Some(info) = info else { return Some(UnusableReason::Missing) };
    if !info.admits_namespace {
        Some(UnusableReason::NamespaceNotAdmitted)
    } else if info.deleting {
        Some(UnusableReason::Deleting)
    } else if info.draining {
        Some(UnusableReason::Draining)
    } else if !info.admits_node {
        Some(UnusableReason::NodeNotAdmitted)
    } else if !info.ready {
        Some(UnusableReason::NotReady(info.not_ready_why.map(ToOwned::to_owned)))
    } else {
        None
    }
}

impl fmt::Display for SelectionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodAnnotation => "pod annotation",
            Self::NamespaceAnnotation => "namespace annotation",
            Self::NamespaceName => "namespace name",
            Self::Default => "default",
        })
    }
}

/// Displays the source of the pool's name. The text is the subject of a sentence that continues with "selects pool".
struct Phrase(SelectionSource);

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SelectionSource::PodAnnotation => "the pod's annotation bobbin.dev/pool",
            SelectionSource::NamespaceAnnotation => "the namespace's annotation bobbin.dev/pool",
            SelectionSource::NamespaceName => "the name of the pod's namespace",
            SelectionSource::Default => "the default rule (neither the pod nor its namespace selects a pool)",
        })
    }
}

/// Displays why the pod gets no address from the pool, and what the user can do.
struct Why<'a>(&'a SelectionError);

impl Why<'_> {
    /// The part of the message that says how the user selects another pool.
    fn elsewhere(&self) -> &'static str {
        match self.0.selection.source {
            SelectionSource::PodAnnotation | SelectionSource::NamespaceAnnotation => {
                "name another pool in the annotation"
            }
            SelectionSource::NamespaceName | SelectionSource::Default => {
                "name another pool in the annotation bobbin.dev/pool of the pod or its namespace"
            }
        }
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elsewhere = self.elsewhere();
        match &self.0.reason {
            UnusableReason::InvalidName => {
                write!(f, "which is not a valid pool name: {POOL_NAME_RULE}. Name an existing pool in the annotation")
            }
            UnusableReason::Missing => write!(f, "which does not exist: create that AddressPool, or {elsewhere}"),
            UnusableReason::Deleting => write!(f, "which is being deleted and assigns no new addresses: {elsewhere}"),
            UnusableReason::Draining => write!(
                f,
                "which is draining and assigns no new addresses: {elsewhere}, or set the pool's spec.draining to false"
            ),
            UnusableReason::NamespaceNotAdmitted => match &self.0.namespace {
                Some(namespace) => write!(
                    f,
                    "whose namespaceSelector does not admit namespace {namespace:?}: {elsewhere}, or label the namespace so that the selector admits it"
                ),
                None => write!(
                    f,
                    "whose namespaceSelector does not admit this CNI call, because the call names no namespace: {elsewhere}"
                ),
            },
            UnusableReason::NodeNotAdmitted => write!(
                f,
                "whose nodeSelector does not admit the pod's node: schedule the pod on a node that the selector admits, or {elsewhere}"
            ),
            UnusableReason::NotReady(Some(why)) => {
                // The pool's condition already says what to do about the pool.
                write!(f, "which is not ready: {}. Alternatively, {elsewhere}", why.trim_end_matches('.'))
            }
            UnusableReason::NotReady(None) => write!(
                f,
                "which is not ready (the operator has not accepted its subnets yet): check that bobbin-operator is running, or {elsewhere}"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
