//! The watches of pods, pools and namespaces that feed the view. Run by [`ClusterView::run`]; they never end, whatever the API server says.

use std::fmt::Debug;
use std::sync::Arc;

use bobbin_apiserver::Clients;
use bobbin_crds::AddressPool;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{ClusterView, Feed, NamespaceFacts, PodFacts};

/// Runs all three, side by side.
pub(super) async fn run(view: &ClusterView, clients: &Clients) {
    let client = &clients.watches;
    let all = Config::default;
    let mine = |field: &str| all().fields(&format!("{field}={}", view.node_name()));
    tokio::join!(
        feed(view, Feed::Pods, Api::<PartialObjectMeta<Pod>>::all(client.clone()), mine("spec.nodeName"), pods()),
        feed(view, Feed::Pools, Api::<AddressPool>::all(client.clone()), all(), pools()),
        feed(view, Feed::Namespaces, Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all(), namespaces()),
    );
}

async fn feed<K>(
    view: &ClusterView,
    feed: Feed,
    api: Api<K>,
    config: Config,
    mut apply: impl FnMut(&ClusterView, Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut events = bobbin_apiserver::watch(api, config);
    view.facts().feeds[feed as usize] = Some(events.age());
    while let Some(event) = events.next().await {
        let complete = matches!(event, Event::InitDone);
        apply(view, event);
        if complete {
            // An empty list is news too: now what is missing is known to be missing.
            view.touch(feed);
        }
    }
}

fn pods() -> impl FnMut(&ClusterView, Event<PartialObjectMeta<Pod>>) {
    let mut listed = std::collections::HashMap::new();
    let key = |pod: &PodFacts| (pod.namespace.clone(), pod.name.clone());
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pod) => {
                let pod = PodFacts::of(&pod.metadata);
                listed.insert(key(&pod), pod);
                return;
            }
            Event::InitDone => view.facts().pods = std::mem::take(&mut listed),
            Event::Apply(pod) => {
                let leaving = pod.metadata.deletion_timestamp.is_some();
                let pod = PodFacts::of(&pod.metadata);
                let mut facts = view.facts();
                let before = facts.pods.insert(key(&pod), pod.clone());
                if before.as_ref() == Some(&pod) {
                    return;
                }
                if !leaving && before.is_none_or(|before| before.uid != pod.uid) {
                    facts.newly_scheduled.push(pod);
                }
            }
            Event::Delete(pod) => {
                let pod = PodFacts::of(&pod.metadata);
                let mut facts = view.facts();
                if facts.pods.get(&key(&pod)).is_some_and(|known| known.uid == pod.uid) {
                    facts.pods.remove(&key(&pod));
                }
            }
        }
        view.touch(Feed::Pods);
    }
}

fn pools() -> impl FnMut(&ClusterView, Event<AddressPool>) {
    let mut listed = std::collections::BTreeMap::new();
    let slim = |pool: AddressPool| (pool.name_any(), Arc::new(pool));
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pool) => {
                let (name, pool) = slim(pool);
                listed.insert(name, pool);
                return;
            }
            Event::InitDone => view.facts().pools = std::mem::take(&mut listed),
            Event::Apply(pool) => {
                let (name, pool) = slim(pool);
                view.facts().pools.insert(name, pool);
            }
            Event::Delete(pool) => {
                view.facts().pools.remove(&pool.name_any());
            }
        }
        view.touch(Feed::Pools);
    }
}

fn namespaces() -> impl FnMut(&ClusterView, Event<PartialObjectMeta<Namespace>>) {
    let mut listed = std::collections::HashMap::new();
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(namespace) => {
                listed.insert(namespace.name_any(), NamespaceFacts::of(&namespace.metadata));
                return;
            }
            Event::InitDone => view.facts().namespaces = std::mem::take(&mut listed),
            Event::Apply(namespace) => {
                let seen = NamespaceFacts::of(&namespace.metadata);
                let before = view.facts().namespaces.insert(namespace.name_any(), seen.clone());
                if before.as_ref() == Some(&seen) {
                    return;
                }
            }
            Event::Delete(namespace) => {
                view.facts().namespaces.remove(&namespace.name_any());
            }
        }
        view.touch(Feed::Namespaces);
    }
}
