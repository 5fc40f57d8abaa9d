//! Which pool a pod gets its address from, out of what the view knows; the rule itself is `addressing::selection`. It never
//! claims anything.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_api_client::ReadError;
use bobbin_cni_wire::{CniError, code};
use bobbin_crds::AddressPool;
use bobbin_crds::pool::condition;
use bobbin_ipam::parse_selector;
use bobbin_ipam::pool_selection::{self, PoolInfo, PoolSelection, SelectionError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::SelectorExt;

use crate::args::UnknownPod;
use crate::ledger::PodRef;
use crate::watch::{ClusterView, NamespaceFacts, NodeFacts, PodFacts, PodLookup};

/// How long an ADD waits for the watches to show its pod, namespace or the pools.
const WATCH_WAIT: Duration = Duration::from_millis(300);

/// Why a pod gets no pool.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The pool that is named can't serve; waiting alone does not help.
    #[error("{pod} gets no address: {refusal}")]
    Refused {
        /// The pod, in words.
        pod: String,
        /// The sentence.
        refusal: SelectionError,
    },
    /// The API server knows no such pod: it was deleted, or the runtime is ahead.
    #[error(
        "{0} gets no address: the API server knows no pod of that name and UID; it was deleted or replaced, and if not, the runtime's next try finds it"
    )]
    PodGone(String),
    /// Nobody can say which pool the pod is to have.
    #[error(
        "{0} gets no address: its pool is unknown while the API server is unreachable; the runtime tries again (an agent with --unknown-pod=default would take the pool of its namespace, if that is known, else the pool \"default\")"
    )]
    Unreachable(String),
}

impl ChooseError {
    /// As the runtime is told.
    pub fn to_cni(&self) -> CniError {
        let code = match self {
            ChooseError::Refused { .. } => code::POOL_REFUSED,
            ChooseError::PodGone(_) | ChooseError::Unreachable(_) => code::TRY_AGAIN_LATER,
        };
        CniError::new(code, self.to_string())
    }
}

/// The pool for a pod, and what was learnt of the pod on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The pool, and which source named it.
    pub selection: PoolSelection,
    /// The pod as the runtime named it, with its UID filled in if the runtime passed none.
    pub pod: PodRef,
    /// Whether the API server showed this agent a pod of that very UID. Never for a static pod: only its mirror has a pod object,
    /// and that has another UID.
    pub pod_seen: bool,
}

/// Chooses for a pod of this node; without a pod (cnitool) the pool is `default`. Makes no call when the watches are up to date and
/// the runtime passed the pod's UID.
///
/// # Errors
/// See [`ChooseError`].
pub async fn choose_pool(view: &ClusterView, pod: &PodRef, unknown: UnknownPod) -> Result<Chosen, ChooseError> {
    let words = match pod.name.as_str() {
        "" => "a call without K8S_POD_NAME".to_owned(),
        name => format!("pod {}/{name} on node {}", pod.namespace, view.node_name()),
    };
    // A pool that an agent has not seen yet may be there.
    if !view.pools_known(WATCH_WAIT).await {
        return Err(ChooseError::Unreachable(words));
    }
    if pod.name.is_empty() {
        let selection = decide(view, &words, None, None)?;
        return Ok(Chosen { selection, pod: pod.clone(), pod_seen: false });
    }
    let (facts, pod, pod_seen) = match view.pod(&pod.namespace, &pod.name, &pod.uid, WATCH_WAIT).await {
        PodLookup::Known(facts) => {
            let named = named(pod, &facts);
            // A pod that was found by name alone may run on another node: only the watch of this node's pods tells.
            let on_node = || view.cached_pod(&named.namespace, &named.name, &named.uid).is_some();
            let seen = facts.uid == named.uid && (!pod.uid.is_empty() || on_node());
            (Some(facts), named, seen)
        }
        PodLookup::NotSeen => return Err(ChooseError::PodGone(words)),
        // Without a UID the last pod of that name is the best guess at the annotation, but nobody can say that it is this pod.
        PodLookup::Unreachable => {
            let guess = pod.uid.is_empty().then(|| view.cached_pod_by_name(&pod.namespace, &pod.name)).flatten();
            // Its annotation may name a pool. A static pod must start without an API server, so its namespace decides.
            if guess.is_none() && unknown == UnknownPod::Refuse && !pod.is_static() {
                return Err(ChooseError::Unreachable(words));
            }
            (guess, pod.clone(), false)
        }
    };
    let selection = match view.namespace_soon(&pod.namespace, WATCH_WAIT).await {
        Ok(namespace) => decide(view, &words, facts.as_ref(), Some((&pod.namespace, namespace.as_ref()))),
        Err(error) => unknown_namespace(view, words, &error, facts.as_ref(), unknown),
    }?;
    Ok(Chosen { selection, pod, pod_seen })
}

/// The pod with the UID that kubelet uses for it, if the runtime passed none.
fn named(pod: &PodRef, facts: &PodFacts) -> PodRef {
    let uid = match pod.uid.as_str() {
        "" => facts.kubelet_uid.clone().unwrap_or_else(|| facts.uid.clone()),
        uid => uid.to_owned(),
    };
    PodRef { uid, ..pod.clone() }
}

fn unknown_namespace(
    view: &ClusterView,
    words: String,
    error: &ReadError,
    pod: Option<&PodFacts>,
    unknown: UnknownPod,
) -> Result<PoolSelection, ChooseError> {
    tracing::debug!(%error, "{words}: its namespace is unknown");
    if unknown == UnknownPod::Refuse && pod.and_then(|pod| pod.pool.as_ref()).is_none() {
        return Err(ChooseError::Unreachable(words));
    }
    decide(view, &words, pod, None)
}

/// What a pod on its way here will get, as far as the watches know; for claiming ahead.
pub fn expected_pool(view: &ClusterView, pod: &PodFacts) -> Option<String> {
    let namespace = view.namespace(&pod.namespace)?;
    decide(view, "a pod on its way", Some(pod), Some((&pod.namespace, Some(&namespace))))
        .ok()
        .map(|selection| selection.pool)
}

fn decide(
    view: &ClusterView,
    words: &str,
    pod: Option<&PodFacts>,
    namespace: Option<(&str, Option<&NamespaceFacts>)>,
) -> Result<PoolSelection, ChooseError> {
    let node = view.node();
    let pools: BTreeMap<String, _> = view.pools().into_iter().map(|pool| (pool_name(&pool).to_owned(), pool)).collect();
    let facts = namespace.and_then(|(_, facts)| facts);
    pool_selection::select_pool(
        pod.and_then(|pod| pod.pool.as_deref()),
        facts.and_then(|facts| facts.pool.as_deref()),
        namespace.map(|(name, _)| name),
        |name| pools.get(name).map(|pool| pool_info(pool, facts, node.as_ref())),
    )
    .map_err(|refusal| ChooseError::Refused { pod: words.to_owned(), refusal })
}

/// What the selection needs to know of a pool.
pub fn pool_info<'a>(
    pool: &'a AddressPool,
    namespace: Option<&NamespaceFacts>,
    node: Option<&NodeFacts>,
) -> PoolInfo<'a> {
    let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == condition::READY);
    let nothing = BTreeMap::new();
    PoolInfo {
        name: pool_name(pool),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        not_ready_why: ready.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty()),
        draining: pool.spec.draining,
        deleting: pool.metadata.deletion_timestamp.is_some(),
        admits_namespace: admits(
            pool.spec.namespace_selector.as_ref(),
            namespace.map_or(&nothing, |namespace| &namespace.labels),
        ),
        admits_node: admits(pool.spec.node_selector.as_ref(), node.map_or(&nothing, |node| &node.labels)),
    }
}

/// Whether labels match a selector. An absent or empty one admits everything, an invalid one nothing.
pub fn admits(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| parse_selector(selector).is_ok_and(|selector| selector.matches(labels)))
}

fn pool_name(pool: &AddressPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
