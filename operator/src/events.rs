//! Events on pools, and on objects that can't be read. Best effort: a failed one is logged and forgotten, and nobody waits for it.

use std::time::Duration;

use bobbin_api_client::{LONGEST_NOTE, shortened};
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// How long publishing one may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Publishes events.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

impl Events {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "bobbin-operator".to_owned(), instance: Some(identity.to_owned()) };
        Self(Recorder::new(client, reporter))
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
            note: Some(shortened(note, LONGEST_NOTE)),
            action: action.to_owned(),
            secondary: None,
        };
        let recorder = self.0.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(DEADLINE, recorder.publish(&event, &object)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an event could not be published"),
                Err(_) => tracing::debug!("an event could not be published in time"),
            }
        });
    }
}
