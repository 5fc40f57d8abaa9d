//! Publishes Kubernetes Events about pods, namespaces, pools and the node. An Event has the same text as the corresponding log line or CNI
//! error.

use std::collections::HashSet;
use std::sync::Arc;

use bobbin_api_client::EventPublisher;
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cluster::{ClusterCache, NodeInfo};
use crate::state::PodRef;

/// At most this many events about this node wait until the agent has read its Node. Further events appear only in the log.
const MAX_NODE_EVENTS: usize = 64;

/// Publishes the agent's events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    publisher: EventPublisher,
    about_node: mpsc::Sender<Event>,
    /// The reason and the note of each queued event about the Node. An event that is already in the queue is not queued again.
    queued: QueuedEvents,
}

type QueuedEvents = Arc<Mutex<HashSet<(String, Option<String>)>>>;

impl Events {
    /// Starts the task that publishes this agent's events. Must be called inside the tokio runtime.
    pub fn start(client: Client, cluster: &ClusterCache) -> Events {
        let publisher = EventPublisher::start(client, "bobbin-agent", cluster.node_name());
        let (about_node, waiting) = mpsc::channel(MAX_NODE_EVENTS);
        let queued = QueuedEvents::default();
        tokio::spawn(publish_on_node(cluster.clone(), publisher.clone(), Arc::clone(&queued), waiting));
        Events { publisher, about_node, queued }
    }

    /// Publishes a warning about a pod.
    pub fn pod_warning(&self, pod: &PodRef, reason: &'static str, sentence: &str) {
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
        self.publisher.publish(event(EventType::Warning, reason, sentence), object);
    }

    /// Publishes this node's warning about a namespace. The Event is in namespace `default`, because Namespaces are cluster-scoped.
    pub fn namespace_warning(&self, name: &str, reason: &'static str, sentence: &str) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.publisher.publish(event(EventType::Warning, reason, sentence), object);
    }

    /// Publishes this node's warning about a pool.
    pub fn pool_warning(&self, pool: &AddressPool, reason: &'static str, sentence: &str) {
        self.publisher.publish(event(EventType::Warning, reason, sentence), pool.object_ref(&()));
    }

    /// Publishes a warning about this node.
    pub fn node_warning(&self, reason: &'static str, sentence: &str) {
        self.queue_on_node(event(EventType::Warning, reason, sentence));
    }

    /// Publishes a notice about this node.
    pub fn node_note(&self, reason: &'static str, sentence: &str) {
        self.queue_on_node(event(EventType::Normal, reason, sentence));
    }

    fn queue_on_node(&self, event: Event) {
        let key = (event.reason.clone(), event.note.clone());
        if !self.queued.lock().insert(key.clone()) {
            return;
        }
        if self.about_node.try_send(event).is_err() {
            tracing::debug!(
                reason = key.0,
                "the queue of events about the Node is full, so this event appears only in the log"
            );
            self.queued.lock().remove(&key);
        }
    }
}

fn event(type_: EventType, reason: &str, sentence: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(sentence.to_owned()),
        action: reason.to_owned(),
        secondary: None,
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
    mut waiting: mpsc::Receiver<Event>,
) {
    let mut changed = cluster.changed();
    while let Some(event) = waiting.recv().await {
        let node = loop {
            if let Some(node) = cluster.node() {
                break node;
            }
            if changed.changed().await.is_err() {
                return;
            }
        };
        queued.lock().remove(&(event.reason.clone(), event.note.clone()));
        publisher.publish(event, node_reference(&node));
    }
}
