//! The watches of pods, pools and namespaces that feed the view. Run by [`ClusterView::run`]; they never end, whatever the API server says.

use std::fmt::Debug;
use std::sync::Arc;

use bobbin_api_client::{Clients, Lenient};
use bobbin_crds::AddressPool;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{ClusterView, Facts, Feed, NamespaceInfo, PodInfo};

/// Runs all three, side by side.
pub(super) async fn run(view: &ClusterView, clients: &Clients) {
    let client = &clients.watches;
    let all = Config::default;
    let mine = |field: &str| all().fields(&format!("{field}={}", view.node_name()));
    tokio::join!(
        feed(
            view,
            Feed::Pods,
            Api::<Lenient<PartialObjectMeta<Pod>>>::all(client.clone()),
            mine("spec.nodeName"),
            pods()
        ),
        feed(view, Feed::Pools, Api::<Lenient<AddressPool>>::all(client.clone()), all(), pools()),
        feed(
            view,
            Feed::Namespaces,
            Api::<Lenient<PartialObjectMeta<Namespace>>>::all(client.clone()),
            all(),
            namespaces()
        ),
    );
}

async fn feed<K>(
    view: &ClusterView,
    feed: Feed,
    api: Api<Lenient<K>>,
    config: Config,
    mut apply: impl FnMut(&ClusterView, Event<Lenient<K>>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut events = bobbin_api_client::watch(api, config);
    view.facts().feeds[feed as usize] = Some(events.age());
    while let Some(event) = events.next().await {
        let complete = matches!(event, Event::InitDone);
        // Logged there; the operator tells it by an event.
        let _ = view.0.unreadable.event(&event);
        apply(view, event);
        if complete {
            // An empty list is news too: now what is missing is known to be missing.
            view.touch(feed);
        }
    }
}

fn pods() -> impl FnMut(&ClusterView, Event<Lenient<PartialObjectMeta<Pod>>>) {
    let mut listed = std::collections::HashMap::new();
    let key = |pod: &PodInfo| (pod.namespace.clone(), pod.name.clone());
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pod) => {
                let pod = PodInfo::of(pod.meta());
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
                let leaving = pod.meta().deletion_timestamp.is_some();
                let pod = PodInfo::of(pod.meta());
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
                let pod = PodInfo::of(pod.meta());
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

fn pools() -> impl FnMut(&ClusterView, Event<Lenient<AddressPool>>) {
    let mut listed = std::collections::BTreeMap::new();
    let known = |view: &ClusterView, name: &str| view.facts().pools.get(name).cloned();
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pool) => {
                let name = pool.name().to_owned();
                // A pool that can't be read is as it was when it could.
                let pool = pool.into_result().map(Arc::new).ok().or_else(|| known(view, &name));
                listed.extend(pool.map(|pool| (name, pool)));
                return;
            }
            Event::InitDone => view.facts().pools = std::mem::take(&mut listed),
            Event::Apply(pool) => {
                let name = pool.name().to_owned();
                if let Ok(pool) = pool.into_result() {
                    view.facts().pools.insert(name, Arc::new(pool));
                }
            }
            Event::Delete(pool) => {
                view.facts().pools.remove(pool.name());
            }
        }
        view.touch(Feed::Pools);
    }
}

fn namespaces() -> impl FnMut(&ClusterView, Event<Lenient<PartialObjectMeta<Namespace>>>) {
    let mut listed = std::collections::HashMap::new();
    move |view, event| {
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(namespace) => {
                listed.insert(namespace.name().to_owned(), NamespaceInfo::of(namespace.meta()));
                return;
            }
            Event::InitDone => view.facts().namespaces = std::mem::take(&mut listed),
            Event::Apply(namespace) => {
                let seen = NamespaceInfo::of(namespace.meta());
                let before = view.facts().namespaces.insert(namespace.name().to_owned(), seen.clone());
                if before.as_ref() == Some(&seen) {
                    return;
                }
            }
            Event::Delete(namespace) => {
                view.facts().namespaces.remove(namespace.name());
            }
        }
        view.touch(Feed::Namespaces);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str) -> Lenient<PartialObjectMeta<Pod>> {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name, "uid": uid}})).unwrap()
    }

    fn expected(view: &ClusterView) -> Vec<String> {
        let mut uids: Vec<String> = view.take_newly_scheduled().into_iter().map(|pod| pod.uid).collect();
        uids.sort();
        uids
    }

    #[test]
    fn pods_that_nobody_asks_for_are_forgotten_with_their_objects() {
        let view = ClusterView::of(None, Vec::new(), Vec::new(), Vec::new());
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
