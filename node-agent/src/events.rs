//! Kubernetes Events on the pod, the pool or the node, with the sentence that the log or the CNI error has. Publishing
//! never fails, delays or repeats anything.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_api_client::{LONGEST_NOTE, shortened};
use bobbin_crds::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{ClusterView, NodeInfo};
use crate::state::PodRef;

/// The same sentence on the same object is published at most once in this interval.
const DEDUP_INTERVAL: Duration = Duration::from_mins(1);
/// What is said again within this time is counted in one event.
const SERIES_WINDOW: Duration = Duration::from_mins(6);
/// Events that wait to be published; what is more is dropped, since it is in the log.
const MAX_QUEUED: usize = 64;
/// The pause between two, so that a flood of errors stays a trickle for the API server.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// How long publishing one may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Publishes events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Note>,
    told: Arc<Mutex<HashMap<(String, String), Instant>>>,
}

/// What an event is about.
#[derive(Clone)]
enum About {
    /// This node, whose UID is known only when its Node was seen.
    Node,
    Object(ObjectReference),
}

struct Note {
    about: About,
    warning: bool,
    reason: &'static str,
    sentence: String,
}

impl Events {
    /// Starts publishing for the agent of the view's node; inside the runtime.
    pub fn start(client: Client, view: &ClusterView) -> Events {
        let (queue, notes) = mpsc::channel(MAX_QUEUED);
        let reporter = Reporter { controller: "bobbin-agent".to_owned(), instance: Some(view.node_name().to_owned()) };
        tokio::spawn(publish(client, reporter, view.clone(), notes));
        Events { queue, told: Arc::default() }
    }

    /// Something is wrong for a pod.
    pub fn pod_warning(&self, pod: &PodRef, reason: &'static str, sentence: &str) {
        if pod.name.is_empty() {
            return;
        }
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        self.tell(About::Object(about), true, reason, sentence);
    }

    /// Something is wrong with a pool, as this node sees it.
    pub fn pool_warning(&self, pool: &AddressPool, reason: &'static str, sentence: &str) {
        self.tell(About::Object(pool.object_ref(&())), true, reason, sentence);
    }

    /// Something is wrong with this node.
    pub fn node_warning(&self, reason: &'static str, sentence: &str) {
        self.tell_node(true, reason, sentence);
    }

    /// Something happened on this node that is worth knowing.
    pub fn node_note(&self, reason: &'static str, sentence: &str) {
        self.tell_node(false, reason, sentence);
    }

    fn tell_node(&self, warning: bool, reason: &'static str, sentence: &str) {
        self.tell(About::Node, warning, reason, sentence);
    }

    fn tell(&self, about: About, warning: bool, reason: &'static str, sentence: &str) {
        let whom = match &about {
            About::Node => "Node".to_owned(),
            About::Object(about) => format!("{:?}/{:?}/{:?}", about.kind, about.namespace, about.name),
        };
        if !self.is_new((whom, format!("{reason}: {sentence}")), Instant::now()) {
            return;
        }
        let note = Note { about, warning, reason, sentence: shortened(sentence, LONGEST_NOTE) };
        if self.queue.try_send(note).is_err() {
            tracing::debug!(reason, "too many events wait; this one is in the log only");
        }
    }

    fn is_new(&self, what: (String, String), now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < DEDUP_INTERVAL);
        told.insert(what, now).is_none()
    }
}

fn about_node(node: &NodeInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.name.clone()),
        uid: Some(node.uid.clone()),
        ..ObjectReference::default()
    }
}

/// What is counted in one event.
fn series_of(note: &Note) -> String {
    match note.about {
        About::Node => note.sentence.clone(),
        About::Object(_) => String::new(),
    }
}

/// The next note that can be published: what is about this node waits until its Node was seen.
async fn next(
    view: &ClusterView,
    notes: &mut mpsc::Receiver<Note>,
    early: &mut VecDeque<Note>,
) -> Option<(Note, ObjectReference)> {
    let mut changed = view.changed();
    loop {
        let ours = view.node();
        if let Some(node) = &ours
            && let Some(note) = early.pop_front()
        {
            return Some((note, about_node(node)));
        }
        let note = tokio::select! {
            received = notes.recv() => received?,
            Ok(()) = changed.changed(), if !early.is_empty() => continue,
        };
        match (note.about.clone(), ours) {
            (About::Object(about), _) => return Some((note, about)),
            (About::Node, Some(ours)) => return Some((note, about_node(&ours))),
            (About::Node, None) if early.len() < MAX_QUEUED => early.push_back(note),
            (About::Node, None) => {
                tracing::debug!(reason = note.reason, "too many events wait; this one is in the log only");
            }
        }
    }
}

async fn publish(client: Client, reporter: Reporter, view: ClusterView, mut notes: mpsc::Receiver<Note>) {
    let mut early = VecDeque::new();
    // A recorder counts all events of one reason on one object as one, with the words of the first. That is right for a pod or a pool, whose
    // sentences differ in their numbers; on a node they are of different addresses or files, so there each sentence has a recorder.
    let mut recorders: HashMap<String, (Recorder, Instant)> = HashMap::new();
    while let Some((note, about)) = next(&view, &mut notes, &mut early).await {
        recorders.retain(|_, (_, at)| at.elapsed() < SERIES_WINDOW);
        if recorders.len() >= MAX_QUEUED {
            recorders.clear();
        }
        let new = || (Recorder::new(client.clone(), reporter.clone()), Instant::now());
        let (assignment_writer, at) = recorders.entry(series_of(&note)).or_insert_with(new);
        *at = Instant::now();
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(note.sentence),
            action: note.reason.to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(DEADLINE, assignment_writer.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason = note.reason, "an event was not taken"),
            Err(_) => tracing::debug!(reason = note.reason, "an event was not answered"),
        }
        tokio::time::sleep(PUBLISH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sentence_is_told_once_a_minute() {
        let (queue, _notes) = mpsc::channel(1);
        let events = Events { queue, told: Arc::default() };
        let what = ("Pod/a".to_owned(), "Full: no address".to_owned());
        assert!(events.is_new(what.clone(), Instant::now()));
        assert!(!events.is_new(what.clone(), Instant::now()));
        tokio::time::advance(DEDUP_INTERVAL).await;
        assert!(events.is_new(what, Instant::now()));
    }
}
