//! The operator's events: warnings about pools, about denied nodes and about unreadable objects.

use bobbin_api_client::EventPublisher;
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource};

/// Publishes the operator's Kubernetes Events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(EventPublisher);

impl Events {
    /// Starts the publisher. Must be called inside the tokio runtime.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        Self(EventPublisher::start(client, "bobbin-operator", identity))
    }

    /// Publishes a warning about a pool.
    pub(crate) fn pool_warning(&self, pool: &AddressPool, reason: &str, action: &str, note: &str) {
        self.0.publish(warning(reason, action, note), pool.object_ref(&()));
    }

    /// Publishes a warning about any object.
    pub(crate) fn warning(&self, object: ObjectReference, reason: &str, action: &str, note: &str) {
        self.0.publish(warning(reason, action, note), object);
    }

    /// Publishes a warning about a Node. Without the Node's UID, `kubectl describe node` does not show the event.
    pub(crate) fn node_warning(&self, name: &str, uid: Option<String>, reason: &str, action: &str, note: &str) {
        self.warning(node_reference(name, uid), reason, action, note);
    }

    /// Publishes a warning or a notice about any object.
    pub(crate) fn publish(&self, object: ObjectReference, is_warning: bool, reason: &str, action: &str, note: &str) {
        let mut event = warning(reason, action, note);
        if !is_warning {
            event.type_ = EventType::Normal;
        }
        self.0.publish(event, object);
    }

    /// Publishes a warning about an object that can't be decoded. Waits for room in the queue, because the operator does
    /// not repeat this warning.
    pub(crate) async fn unreadable(&self, object: ObjectReference, note: &str) {
        self.0.publish_when_possible(warning("Unreadable", "Decode", note), object).await;
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

fn warning(reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note.to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}
