//! Warnings about pools, and about objects that can't be read.

use bobbin_api_client::EventPublisher;
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource};

/// Publishes the operator's events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(EventPublisher);

impl Events {
    /// Starts publishing; must be called inside the runtime.
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        Self(EventPublisher::start(client, "bobbin-operator", identity))
    }

    /// A warning about a pool.
    pub(crate) fn warn(&self, pool: &AddressPool, reason: &str, action: &str, note: &str) {
        self.about(pool.object_ref(&()), reason, action, note);
    }

    /// A warning about any object.
    pub(crate) fn about(&self, object: ObjectReference, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        self.0.publish(event, object);
    }
}
