//! The operator's events about pools, deleted and denied nodes, and unreadable objects. The catalog in
//! `bobbin_messages` gives each event its type, `Normal` or `Warning`, or leaves the choice to the caller (`Either`).

use bobbin_api_client::{EventPublisher, Notice};
use bobbin_crds::AddressPool;
use bobbin_messages::event::operator;
use bobbin_messages::{Event, Reporter};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};

/// Publishes the operator's Kubernetes Events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(EventPublisher);

impl Events {
    /// Starts the publisher. Must be called inside the tokio runtime.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        Self(EventPublisher::start(client, Reporter::OPERATOR, identity))
    }

    /// Publishes an event about a pool.
    pub(crate) fn on_pool(&self, pool: &AddressPool, event: &'static Event, note: &str) {
        self.0.publish(Notice::new(event, note), pool.object_ref(&()));
    }

    /// Publishes an event about any object.
    pub(crate) fn on_object(&self, object: ObjectReference, event: &'static Event, note: &str) {
        self.0.publish(Notice::new(event, note), object);
    }

    /// Publishes an event about a Node. Without the Node's UID, `kubectl describe node` does not show the event.
    pub(crate) fn on_node(&self, name: &str, uid: Option<String>, event: &'static Event, note: &str) {
        self.on_object(node_reference(name, uid), event, note);
    }

    /// Publishes an event whose type the catalog leaves to the caller (`Either`).
    pub(crate) fn on_object_as(&self, object: ObjectReference, is_warning: bool, event: &'static Event, note: &str) {
        self.0.publish(Notice::new(event, note).warning_if(is_warning), object);
    }

    /// Publishes a warning about an object that can't be decoded. Waits for room in the queue, because the operator does
    /// not repeat this warning.
    pub(crate) async fn unreadable(&self, object: ObjectReference, note: &str) {
        self.0.publish_when_possible(Notice::new(&operator::UNREADABLE, note), object).await;
    }
}

/// A reference to a Node, which may no longer exist.
pub(crate) fn node_reference(name: &str, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid,
        ..ObjectReference::default()
    }
}
