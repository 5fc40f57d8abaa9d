//! Publishes Kubernetes Events. The caller gets no error if an event can't be published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bobbin_messages::{Event as CatalogEvent, EventType as CatalogType, Reporter as Program};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::message::{MAX_NOTE_BYTES, without_middle};

/// An event with the same reason and note on the same object is published at most once in this interval.
const DEDUP_INTERVAL: Duration = Duration::from_mins(1);
/// How long the publisher keeps an unused kube `Recorder`. A recorder remembers the Event objects on which it counts
/// repeated events. It forgets them after this time, so an older recorder is of no use.
const SERIES_WINDOW: Duration = Duration::from_mins(6);
/// The maximum number of events in the queue. If the queue is full, [`EventPublisher::publish`] drops new events, so only
/// the log contains these events.
const MAX_QUEUED_EVENTS: usize = 64;
/// The pause between two events, so that a flood of errors does not load the API server.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// How long publishing one event may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// An event of the catalog with its note. Programs can publish no other events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    event: &'static CatalogEvent,
    note: String,
    is_warning: bool,
}

impl Notice {
    /// Creates a Warning event, or a Normal event if the catalog says so. If the note is too long for the API server,
    /// cuts out the middle, because the end says what to do.
    pub fn new(event: &'static CatalogEvent, note: &str) -> Self {
        let note = without_middle(note, MAX_NOTE_BYTES);
        Self { event, note, is_warning: event.type_ != CatalogType::Normal }
    }

    /// If the catalog allows both types for the event, makes it a Warning if `is_warning` is true, otherwise Normal.
    #[must_use]
    pub fn warning_if(self, is_warning: bool) -> Self {
        let is_warning = if self.event.type_ == CatalogType::Either { is_warning } else { self.is_warning };
        Self { is_warning, ..self }
    }

    fn into_event(self) -> Event {
        Event {
            type_: if self.is_warning { EventType::Warning } else { EventType::Normal },
            reason: self.event.reason.to_owned(),
            note: Some(self.note),
            action: self.event.action.to_owned(),
            secondary: None,
        }
    }
}

/// Publishes events one after the other in a background task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventPublisher {
    queue: mpsc::Sender<(Notice, ObjectReference)>,
    published: Arc<Mutex<HashMap<EventKey, Instant>>>,
}

/// Identifies an event. Two events with the same key count as the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EventKey {
    object: String,
    notice: Notice,
}

impl EventPublisher {
    /// Starts the background task. `instance` is the name of the program's pod or node.
    ///
    /// Must be called inside the tokio runtime.
    pub fn start(client: Client, program: Program, instance: &str) -> Self {
        let (queue, events) = mpsc::channel(MAX_QUEUED_EVENTS);
        tokio::spawn(publish_queued(client, reporter(program, instance), events));
        Self { queue, published: Arc::default() }
    }

    /// Queues an event about an object.
    pub fn publish(&self, notice: Notice, object: ObjectReference) {
        let Ok(slot) = self.queue.try_reserve() else {
            tracing::debug!(
                reason = notice.event.reason,
                "dropped a Kubernetes Event, because the queue of events is full; the event appears only in the log"
            );
            return;
        };
        if self.is_new(&notice, &object, Instant::now()) {
            slot.send((notice, object));
        }
    }

    /// Like [`EventPublisher::publish`], but waits for room in the queue instead of dropping the event.
    pub async fn publish_when_possible(&self, notice: Notice, object: ObjectReference) {
        // An error means that the publishing task has ended, because the runtime is shutting down.
        let Ok(slot) = self.queue.reserve().await else { return };
        if self.is_new(&notice, &object, Instant::now()) {
            slot.send((notice, object));
        }
    }

    /// Returns whether an event is new: no event with the same key was queued in the last [`DEDUP_INTERVAL`]. If so,
    /// records the event. A repeated event does not extend the interval.
    fn is_new(&self, notice: &Notice, object: &ObjectReference, now: Instant) -> bool {
        let key = EventKey {
            object: format!("{:?}/{:?}/{:?}", object.kind, object.namespace, object.name),
            notice: notice.clone(),
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

/// Publishes one event, and waits for the API server's answer.
///
/// # Errors
/// Fails if the API server refuses the event or does not answer in time. The error text is the reason.
pub async fn publish_now(
    client: Client,
    program: Program,
    instance: &str,
    notice: Notice,
    object: &ObjectReference,
) -> Result<(), String> {
    let recorder = Recorder::new(client, reporter(program, instance));
    match tokio::time::timeout(PUBLISH_TIMEOUT, recorder.publish(&notice.into_event(), object)).await {
        Ok(published) => published.map_err(|error| error.to_string()),
        Err(_) => Err("the API server did not confirm the event in time".to_owned()),
    }
}

/// Returns the values of `reportingController` and `reportingInstance` in each event: the program and its instance.
fn reporter(program: Program, instance: &str) -> Reporter {
    Reporter { controller: program.controller().to_owned(), instance: Some(instance.to_owned()) }
}

/// Returns the key of the recorder for an event. Events with the same key share one recorder.
///
/// A recorder counts all events with the same reason on the same object as one Event, which has the first event's note.
/// On most objects the notes differ only in numbers, so the first note is enough. On a Node or a ConfigMap, the notes
/// are about different addresses, files and nodes. So each such note has its own recorder.
fn series_of(event: &Event, object: &ObjectReference) -> String {
    let names_others = matches!(object.kind.as_deref(), Some("Node" | "ConfigMap"));
    event.note.clone().filter(|_| names_others).unwrap_or_default()
}

async fn publish_queued(client: Client, reporter: Reporter, mut events: mpsc::Receiver<(Notice, ObjectReference)>) {
    let mut recorders: HashMap<String, (Recorder, Instant)> = HashMap::new();
    while let Some((notice, object)) = events.recv().await {
        let event = notice.into_event();
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
    use bobbin_messages::event::{agent, operator};

    use super::*;

    fn pod(name: &str) -> ObjectReference {
        ObjectReference { kind: Some("Pod".to_owned()), name: Some(name.to_owned()), ..ObjectReference::default() }
    }

    fn event(note: &str) -> Notice {
        Notice::new(&agent::POOL_EXHAUSTED, note)
    }

    fn publisher() -> (EventPublisher, mpsc::Receiver<(Notice, ObjectReference)>) {
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
    async fn a_long_note_keeps_its_advice_and_a_full_queue_drops_events() {
        let (publisher, mut events) = publisher();
        publisher.publish(event(&format!("{} do this", "x".repeat(2 * MAX_NOTE_BYTES))), pod("a"));
        let (first, _) = events.recv().await.expect("an event is queued");
        assert!(first.note.len() <= MAX_NOTE_BYTES && first.note.ends_with("x do this"), "{}", first.note);
        for number in 0..=MAX_QUEUED_EVENTS {
            publisher.publish(event(&number.to_string()), pod("a"));
        }
        assert_eq!(events.len(), MAX_QUEUED_EVENTS);
        // The full queue dropped the last event. A dropped event is not recorded, so it still counts as new.
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
        assert_eq!(series_of(&event("address lost").into_event(), &node), "address lost");
        assert_eq!(series_of(&event("address lost").into_event(), &pod("a")), "");
    }

    #[test]
    fn the_catalog_decides_the_type_of_an_event() {
        let is_warning = |notice: Notice| notice.into_event().type_ == EventType::Warning;
        assert!(is_warning(event("full").warning_if(false)));
        assert!(!is_warning(Notice::new(&agent::REMOVED, "removed").warning_if(true)));
        for wanted in [true, false] {
            assert_eq!(is_warning(Notice::new(&operator::NODE_DELETED, "deleted").warning_if(wanted)), wanted);
        }
    }
}
