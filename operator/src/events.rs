//! Events on pools. Best effort: a failed one is logged and forgotten, and nobody waits for it.

use std::time::Duration;

use bobbin_crds::AddressPool;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// How long publishing one may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The API server takes notes of at most 1 kB.
const LONGEST: usize = 1000;

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
        let note: String = note.chars().take(LONGEST / 4).collect();
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        let (recorder, reference) = (self.0.clone(), pool.object_ref(&()));
        tokio::spawn(async move {
            match tokio::time::timeout(DEADLINE, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an event could not be published"),
                Err(_) => tracing::debug!("an event could not be published in time"),
            }
        });
    }
}
