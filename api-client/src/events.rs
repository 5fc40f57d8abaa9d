//! Publishes Kubernetes Events. The caller gets no error if an event can't be published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::message::{MAX_NOTE_BYTES, shortened};

/// An event with the same reason and note on the same object is published at most once in this interval.
const DEDUP_INTERVAL: Duration = Duration::from_mins(1);
/// If an event repeats within this time, kube's recorder increases the count of the existing Event object.
const SERIES_WINDOW: Duration = Duration::from_mins(6);
/// The maximum number of events in the queue. If the queue is full, [`EventPublisher::publish`] drops new events, so only
/// the log contains these events.
const MAX_QUEUED_EVENTS: usize = 64;
/// The pause between two events, so that a flood of errors does not load the API server.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// How long publishing one event may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes events one after the other in a background task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventPublisher {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    published: Arc<Mutex<HashMap<EventKey, Instant>>>,
}

/// Identifies an event. Two events with the same key count as the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EventKey {
    object: String,
    reason: String,
    note: Option<String>,
}

impl EventPublisher {
    /// Starts the background task. `controller` names the program, and `instance` names the program's pod or node.
    ///
    /// Must be called inside the tokio runtime.
    pub fn start(client: Client, controller: &str, instance: &str) -> Self {
        let (queue, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        tokio::spawn(publish_queued(client, reporter, events));
        Self { queue, published: Arc::default() }
    }

    /// Queues an event about an object. The event's note is shortened to the length that the API server admits.
    pub fn publish(&self, event: Event, object: ObjectReference) {
        let Ok(slot) = self.queue.try_reserve() else {
            tracing::debug!(
                reason = event.reason,
                "dropped a Kubernetes Event, because the queue of events is full; the event appears only in the log"
            );
            return;
        };
        if self.is_new(&event, &object, Instant::now()) {
            slot.send((shorten(event), object));
        }
    }

    /// Like [`EventPublisher::publish`], but waits for room in the queue instead of dropping the event.
    pub async fn publish_when_possible(&self, event: Event, object: ObjectReference) {
        // An error means that the publishing task has ended, because the runtime is shutting down.
        let Ok(slot) = self.queue.reserve().await else { return };
        if self.is_new(&event, &object, Instant::now()) {
            slot.send((shorten(event), object));
        }
    }

    /// Returns true if no event with the same key was queued in the last [`DEDUP_INTERVAL`], and records the new event. A
    /// repeated event does not extend the interval.
    fn is_new(&self, event: &Event, object: &ObjectReference, now: Instant) -> bool {
        let key = EventKey {
            object: format!("{:?}/{:?}/{:?}", object.kind, object.namespace, object.name),
            reason: event.reason.clone(),
            note: event.note.clone(),
        };
        let mut published = self.published.lock();
        published.retain(|_, at| now.duration_since(*at) < DEDUP_INTERVAL);
        match published.entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(now);
                true
            }
        }
    }
}

fn shorten(mut event: Event) -> Event {
    event.note = event.note.map(|note| shortened(&note, MAX_NOTE_BYTES));
    event
}

/// Chooses the recorder for an event: events for which this function returns the same text share one recorder.
///
/// A recorder counts all events with the same reason on the same object as one Event, which has the first event's note. On
/// most objects the notes differ only in numbers, so one recorder is enough. Notes on a Node or a ConfigMap name different
/// addresses, files and nodes, so each note has its own recorder.
fn series_of(event: &Event, object: &ObjectReference) -> String {
    let names_others = matches!(object.kind.as_deref(), Some("Node" | "ConfigMap"));
    event.note.clone().filter(|_| names_others).unwrap_or_default()
}

async fn publish_queued(client: Client, reporter: Reporter, mut events: mpsc::Receiver<(Event, ObjectReference)>) {
    let mut recorders: HashMap<String, (Recorder, Instant)> = HashMap::new();
    while let Some((event, object)) = events.recv().await {
        recorders.retain(|_, (_, used_at)| used_at.elapsed() < SERIES_WINDOW);
        if recorders.len() >= MAX_QUEUED_EVENTS {
            recorders.clear();
        }
        let new = || (Recorder::new(client.clone(), reporter.clone()), Instant::now());
        let (recorder, used_at) = recorders.entry(series_of(&event, &object)).or_insert_with(new);
        *used_at = Instant::now();
        match tokio::time::timeout(PUBLISH_TIMEOUT, recorder.publish(&event, &object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, reason = event.reason, "failed to publish a Kubernetes Event; the event appears only in the log");
            }
            Err(_) => tracing::debug!(
                reason = event.reason,
                "the API server did not confirm a Kubernetes Event in time; the Event may be missing"
            ),
        }
        tokio::time::sleep(PUBLISH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::events::EventType;

    use super::*;

    fn pod(name: &str) -> ObjectReference {
        ObjectReference { kind: Some("Pod".to_owned()), name: Some(name.to_owned()), ..ObjectReference::default() }
    }

    fn event(note: &str) -> Event {
        Event {
            type_: EventType::Warning,
            reason: "PoolExhausted".to_owned(),
            note: Some(note.to_owned()),
            action: "Assign".to_owned(),
            secondary: None,
        }
    }

    fn publisher() -> (EventPublisher, mpsc::Receiver<(Event, ObjectReference)>) {
        let (queue, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        (EventPublisher { queue, published: Arc::default() }, events)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_event_is_published_once_a_minute() {
        let (publisher, mut events) = publisher();
        for object in ["a", "a", "b"] {
            publisher.publish(event("no free address"), pod(object));
        }
        assert_eq!(events.len(), 2);
        for _ in 0..3 {
            tokio::time::advance(DEDUP_INTERVAL / 2).await;
            publisher.publish(event("no free address"), pod("a"));
        }
        assert_eq!(events.len(), 3);
        assert_eq!(events.recv().await.and_then(|(_, object)| object.name), Some("a".to_owned()));
    }

    #[tokio::test]
    async fn a_long_note_is_cut_and_a_full_queue_drops_events() {
        let (publisher, mut events) = publisher();
        publisher.publish(event(&"x".repeat(MAX_NOTE_BYTES + 1)), pod("a"));
        let (first, _) = events.recv().await.expect("an event is queued");
        assert_eq!(first.note.map(|note| note.len()), Some(MAX_NOTE_BYTES));
        for number in 0..=MAX_QUEUED_EVENTS {
            publisher.publish(event(&number.to_string()), pod("a"));
        }
        assert_eq!(events.len(), MAX_QUEUED_EVENTS);
        // The publisher dropped the last event, so that event still counts as new and can be queued now.
        drop(events.recv().await);
        publisher.publish(event(&MAX_QUEUED_EVENTS.to_string()), pod("a"));
        assert_eq!(events.len(), MAX_QUEUED_EVENTS);
    }

    #[tokio::test]
    async fn an_event_that_may_wait_is_not_dropped() {
        let (publisher, mut events) = publisher();
        let send = async {
            for number in 0..3 * MAX_QUEUED_EVENTS {
                publisher.publish_when_possible(event(&number.to_string()), pod("a")).await;
            }
        };
        let receive = async {
            for _ in 0..3 * MAX_QUEUED_EVENTS {
                assert!(events.recv().await.is_some());
            }
        };
        tokio::join!(send, receive);
    }

    #[test]
    fn only_on_a_node_each_note_has_its_own_series() {
        let node = ObjectReference { kind: Some("Node".to_owned()), ..ObjectReference::default() };
        assert_eq!(series_of(&event("address lost"), &node), "address lost");
        assert_eq!(series_of(&event("address lost"), &pod("a")), "");
    }
}
