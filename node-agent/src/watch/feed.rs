//! The five watches that feed the view. Run by [`ClusterView::run`]; they never end, whatever the API server says.

use std::fmt::Debug;
use std::sync::{Arc, PoisonError};

use bobbin_apiserver::Clients;
use bobbin_crds::{AddressBlock, AddressPool};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{BlockNews, ClusterView, Facts, Feed, NamespaceFacts, NodeFacts, PodFacts};

/// Runs all five, side by side.
pub(super) async fn run(view: &ClusterView, clients: &Clients) {
    let client = &clients.watches;
    let all = Config::default;
    let mine = |field: &str| all().fields(&format!("{field}={}", view.node_name()));
    tokio::join!(
        feed(view, Feed::Node, Api::<Node>::all(client.clone()), mine("metadata.name"), node),
        feed(view, Feed::Blocks, Api::<AddressBlock>::all(client.clone()), mine("spec.nodeName"), blocks()),
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

fn node(view: &ClusterView, event: Event<Node>) {
    let seen = match event {
        Event::Apply(node) | Event::InitApply(node) => NodeFacts::of(&node),
        // A deleted Node stays known by its UID: whoever claims in its name is refused by nothing but the next Node's UID.
        Event::Delete(_) | Event::Init | Event::InitDone => return,
    };
    let mut facts = view.facts();
    if facts.node.as_ref() != Some(&seen) {
        facts.node = Some(seen);
        drop(facts);
        view.touch(Feed::Node);
    }
}

fn blocks() -> impl FnMut(&ClusterView, Event<AddressBlock>) {
    let mut listed = Vec::new();
    move |view, event| {
        let news = match event {
            Event::Init => return listed.clear(),
            Event::InitApply(block) => return listed.push(block),
            Event::InitDone => BlockNews::All(std::mem::take(&mut listed)),
            Event::Apply(block) => BlockNews::Is(Box::new(block)),
            Event::Delete(block) => BlockNews::Left(block.name_any()),
        };
        let sender = view.0.block_news.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = sender {
            // Nobody listens only while the agent stops.
            let _ = sender.send(news);
        }
        view.touch(Feed::Blocks);
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
            Event::InitDone => {
                let mut facts = view.facts();
                facts.pods = std::mem::take(&mut listed);
                let Facts { pods, newly_scheduled, .. } = &mut *facts;
                newly_scheduled.retain(|key, pod| pods.get(key).is_some_and(|known| known.uid == pod.uid));
            }
            Event::Apply(pod) => {
                let leaving = pod.metadata.deletion_timestamp.is_some();
                let pod = PodFacts::of(&pod.metadata);
                let mut facts = view.facts();
                let before = facts.pods.insert(key(&pod), pod.clone());
                if before.as_ref() == Some(&pod) {
                    return;
                }
                if !leaving && before.is_none_or(|before| before.uid != pod.uid) {
                    facts.newly_scheduled.insert(key(&pod), pod);
                }
            }
            Event::Delete(pod) => {
                let pod = PodFacts::of(&pod.metadata);
                let mut facts = view.facts();
                if facts.pods.get(&key(&pod)).is_some_and(|known| known.uid == pod.uid) {
                    facts.pods.remove(&key(&pod));
                    facts.newly_scheduled.remove(&key(&pod));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name, "uid": uid}})).unwrap()
    }

    fn expected(view: &ClusterView) -> Vec<String> {
        let mut uids: Vec<String> = view.take_newly_scheduled().into_iter().map(|pod| pod.uid).collect();
        uids.sort();
        uids
    }

    #[test]
    fn pods_that_nobody_asks_for_are_forgotten_with_their_objects() {
        let view = ClusterView::with(None, "n1", Path::new("/nonexistent"));
        let mut apply = pods();
        for number in 0..1000 {
            apply(&view, Event::Apply(pod("web-0", &format!("u{number}"))));
            apply(&view, Event::Delete(pod("web-0", &format!("u{number}"))));
        }
        apply(&view, Event::Apply(pod("web-0", "old")));
        apply(&view, Event::Apply(pod("web-0", "new")));
        assert_eq!(view.facts().newly_scheduled.len(), 1);
        apply(&view, Event::Apply(pod("web-1", "missed")));
        // The watch began anew without the deletion of web-1.
        apply(&view, Event::Init);
        apply(&view, Event::InitApply(pod("web-0", "new")));
        apply(&view, Event::InitDone);
        assert_eq!(expected(&view), ["new"]);
        assert!(expected(&view).is_empty());
    }
}
