//! Publishes Kubernetes Events about pods, namespaces, pools and the node. An Event has the same text as the corresponding log line or CNI
//! error. The catalog `bobbin_messages::event` says which events are warnings.

use std::collections::HashSet;
use std::sync::Arc;

use bobbin_api_client::{EventPublisher, Notice};
use bobbin_crds::AddressPool;
use bobbin_messages::{Event, Reporter};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cluster::{ClusterCache, NodeInfo};
use crate::state::PodRef;

/// How many events about this node may wait until the agent has read its Node. Further events appear only in the log.
const MAX_NODE_EVENTS: usize = 64;

/// Publishes the agent's events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    publisher: EventPublisher,
    about_node: mpsc::Sender<Notice>,
    /// The queued events about the Node. An event that is already in the queue is not queued again.
    queued: QueuedEvents,
}

type QueuedEvents = Arc<Mutex<HashSet<Notice>>>;

impl Events {
    /// Starts the task that publishes this agent's events. Must be called inside the tokio runtime.
    pub fn start(client: Client, cluster: &ClusterCache) -> Events {
        let publisher = EventPublisher::start(client, Reporter::AGENT, cluster.node_name());
        let (about_node, waiting) = mpsc::channel(MAX_NODE_EVENTS);
        let queued = QueuedEvents::default();
        tokio::spawn(publish_on_node(cluster.clone(), publisher.clone(), Arc::clone(&queued), waiting));
        Events { publisher, about_node, queued }
    }

    /// Publishes an event about a pod.
    pub fn on_pod(&self, pod: &PodRef, event: &'static Event, sentence: &str) {
        if pod.name.is_empty() {
            return;
        }
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        self.publisher.publish(Notice::new(event, sentence), object);
    }

    /// Publishes this node's event about a namespace. The Event is in namespace `default`, because Namespaces are cluster-scoped.
    pub fn on_namespace(&self, name: &str, event: &'static Event, sentence: &str) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.publisher.publish(Notice::new(event, sentence), object);
    }

    /// Publishes this node's event about a pool.
    pub fn on_pool(&self, pool: &AddressPool, event: &'static Event, sentence: &str) {
        self.publisher.publish(Notice::new(event, sentence), pool.object_ref(&()));
    }

    /// Publishes an event about this node.
    pub fn on_node(&self, event: &'static Event, sentence: &str) {
        let notice = Notice::new(event, sentence);
        if !self.queued.lock().insert(notice.clone()) {
            return;
        }
        if self.about_node.try_send(notice.clone()).is_err() {
            tracing::debug!(
                ?notice,
                "the queue of events about the Node is full, so this event appears only in the log"
            );
            self.queued.lock().remove(&notice);
        }
    }
}

fn node_reference(node: &NodeInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.name.clone()),
        uid: Some(node.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Publishes the events about this node. The events wait until the agent has seen its Node, because an event needs the Node's UID.
async fn publish_on_node(
    cluster: ClusterCache,
    publisher: EventPublisher,
    queued: QueuedEvents,
    mut waiting: mpsc::Receiver<Notice>,
) {
    let mut changed = cluster.changed();
    while let Some(notice) = waiting.recv().await {
        let node = loop {
            if let Some(node) = cluster.node() {
                break node;
            }
            if changed.changed().await.is_err() {
                return;
            }
        };
        queued.lock().remove(&notice);
        publisher.publish(notice, node_reference(&node));
    }
}
