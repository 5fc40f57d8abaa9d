//! Which pool a pod gets its address from, and why, or the sentence that says why it gets none.

use std::fmt;

/// The pool that pods get which nothing else names one for.
pub const DEFAULT_POOL: &str = "default";

/// What the choice needs to know of a pool.
#[allow(clippy::struct_excessive_bools, reason = "facts, each of its own")]
#[derive(Clone, Copy, Debug)]
pub struct PoolFacts<'a> {
    /// The pool's name.
    pub name: &'a str,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// The message of that condition, if it is not.
    pub not_ready_why: Option<&'a str>,
    /// `spec.draining`.
    pub draining: bool,
    /// The pool is being deleted.
    pub deleting: bool,
    /// Its `namespaceSelector` admits the pod's namespace.
    pub admits_namespace: bool,
    /// Its `nodeSelector` admits this node.
    pub admits_node: bool,
}

/// What named the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The pod's annotation `bobbin.dev/pool`.
    PodAnnotation,
    /// The annotation of its namespace.
    NamespaceAnnotation,
    /// The pool is named like the namespace.
    NamespaceName,
    /// Nothing named one, so the pool `default`.
    Default,
}

/// The pool and what named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The pool's name.
    pub pool: String,
    /// What named it.
    pub source: Source,
}

/// The pool that was named can't serve the pod. Nothing falls back to another pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_} names pool {:?}, {why}", choice.pool, source_ = Phrase(choice.source), why = Why(self))]
pub struct Refusal {
    /// The pool and what named it.
    pub choice: Choice,
    /// The pod's namespace, where known.
    pub namespace: Option<String>,
    /// Why the pool can't serve.
    pub reason: Reason,
}

/// Why a pool can't serve a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no such pool.
    Missing,
    /// It is being deleted.
    Deleting,
    /// It is draining.
    Draining,
    /// It does not admit the namespace.
    NamespaceNotAdmitted,
    /// It does not admit this node.
    NodeNotAdmitted,
    /// It is not ready; the message of its condition.
    NotReady(Option<String>),
}

/// Chooses: the first source that names a pool decides; if that pool can't serve, the pod is refused.
///
/// An empty annotation counts as absent. `pool` looks a pool up by name.
pub fn choose<'a>(
    pod_annotation: Option<&str>,
    namespace_annotation: Option<&str>,
    namespace: Option<&str>,
    pool: impl Fn(&str) -> Option<PoolFacts<'a>>,
) -> Result<Choice, Refusal> {
    let (name, source) = if let Some(name) = pod_annotation.filter(|name| !name.is_empty()) {
        (name, Source::PodAnnotation)
    } else if let Some(name) = namespace_annotation.filter(|name| !name.is_empty()) {
        (name, Source::NamespaceAnnotation)
    } else if let Some(name) = namespace.filter(|name| *name != DEFAULT_POOL && pool(name).is_some()) {
        (name, Source::NamespaceName)
    } else {
        (DEFAULT_POOL, Source::Default)
    };
    let choice = Choice { pool: name.to_owned(), source };
    match refused(pool(name)) {
        None => Ok(choice),
        Some(reason) => Err(Refusal { choice, namespace: namespace.map(ToOwned::to_owned), reason }),
    }
}

fn refused(facts: Option<PoolFacts<'_>>) -> Option<Reason> {
    let Some(facts) = facts else { return Some(Reason::Missing) };
    if !facts.admits_namespace {
        Some(Reason::NamespaceNotAdmitted)
    } else if facts.deleting {
        Some(Reason::Deleting)
    } else if facts.draining {
        Some(Reason::Draining)
    } else if !facts.admits_node {
        Some(Reason::NodeNotAdmitted)
    } else if !facts.ready {
        Some(Reason::NotReady(facts.not_ready_why.map(ToOwned::to_owned)))
    } else {
        None
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodAnnotation => "pod annotation",
            Self::NamespaceAnnotation => "namespace annotation",
            Self::NamespaceName => "namespace name",
            Self::Default => "default",
        })
    }
}

/// The source as the subject of "names pool".
struct Phrase(Source);

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::PodAnnotation => "the pod's annotation bobbin.dev/pool",
            Source::NamespaceAnnotation => "the namespace's annotation bobbin.dev/pool",
            Source::NamespaceName => "the name of its namespace",
            Source::Default => "the default (neither the pod nor its namespace names one)",
        })
    }
}

/// The reason with what to do.
struct Why<'a>(&'a Refusal);

impl Why<'_> {
    /// How the user makes another source decide.
    fn elsewhere(&self) -> &'static str {
        match self.0.choice.source {
            Source::PodAnnotation | Source::NamespaceAnnotation => "name another pool in the annotation",
            Source::NamespaceName | Source::Default => {
                "name another pool in the annotation bobbin.dev/pool of the pod or its namespace"
            }
        }
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elsewhere = self.elsewhere();
        match &self.0.reason {
            Reason::Missing => write!(f, "which does not exist: create that AddressPool, or {elsewhere}"),
            Reason::Deleting => write!(f, "which is being deleted and hands out no new addresses: {elsewhere}"),
            Reason::Draining => write!(
                f,
                "which is draining and hands out no new addresses: {elsewhere}, or set the pool's spec.draining to false"
            ),
            Reason::NamespaceNotAdmitted => match &self.0.namespace {
                Some(namespace) => write!(
                    f,
                    "whose namespaceSelector does not admit namespace {namespace:?}: {elsewhere}, or label the namespace as the pool asks"
                ),
                None => write!(f, "whose namespaceSelector admits no call without a pod's namespace: {elsewhere}"),
            },
            Reason::NodeNotAdmitted => write!(
                f,
                "whose nodeSelector does not admit this node: let the pod run on the pool's nodes, or {elsewhere}"
            ),
            Reason::NotReady(why) => {
                let why = why.as_deref().unwrap_or("the operator has not accepted its subnets yet");
                write!(f, "which is not ready ({}): mend the pool, or {elsewhere}", why.trim_end_matches('.'))
            }
        }
    }
}

#[cfg(test)]
mod tests;
