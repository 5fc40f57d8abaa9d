//! The faults that are active, and the requests and watch events that were observed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Uri};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Which requests; what is absent matches all.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    verbs: &'static [&'static str],
    resource: Option<&'static str>,
    name: Option<String>,
    once: bool,
}

impl Selector {
    /// Requests with one of these verbs: get, list, watch, create, update, patch, delete, or event (a watch's line).
    pub fn verbs(verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..Self::default() }
    }

    /// Only for this resource (plural, lower case).
    #[must_use]
    pub fn of(mut self, resource: &'static str) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Only for the object of this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only the first such request.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    fn matches(&self, request: &RequestInfo) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&request.verb))
            && self.resource.is_none_or(|resource| resource == request.resource)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status and is not passed on.
    Refuse(u16),
    /// The request waits, and is passed on when the fault ends.
    HoldRequest,
    /// The request is carried out; its answer waits until the fault ends.
    HoldAnswer,
    /// The request waits so long.
    Delay(Duration),
    /// Watches are without their events; bookmarks pass.
    DropEvents,
    /// Watches that are open when the fault begins stay open and are silent for ever; those that are opened later pass.
    Freeze,
    /// The API server was restored: resourceVersions below this one are from its future. A watch that resumes from one is silent.
    Rewind(u64),
    /// Answers have a resourceVersion that is far below all earlier ones.
    OldVersion,
}

/// One request, or one line of a watch.
#[derive(Clone, Debug)]
pub struct ObservedRequest {
    /// The verb; `event` for a watch's line that was delivered.
    pub verb: &'static str,
    /// The object's name, or nothing.
    pub name: String,
    /// The body, or the line.
    pub body: String,
}

#[derive(Clone, Debug)]
pub(super) struct RequestInfo {
    pub(super) verb: &'static str,
    pub(super) resource: String,
    pub(super) name: String,
    /// Which request it is.
    pub(super) id: usize,
}

impl RequestInfo {
    /// Reads `/apis/GROUP/VERSION[/namespaces/NAMESPACE]/RESOURCE[/NAME]`.
    pub(super) fn of(method: &Method, uri: &Uri) -> RequestInfo {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let skipped = if parts.next() == Some("apis") { 2 } else { 1 };
        let mut rest: Vec<&str> = parts.skip(skipped).collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let watches =
            uri.query().is_some_and(|query| query.split('&').any(|one| matches!(one, "watch=true" | "watch=1")));
        let verb = match method.as_str() {
            "GET" if watches => "watch",
            "GET" if name.is_empty() => "list",
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "other",
        };
        RequestInfo { verb, resource: rest.first().copied().unwrap_or_default().to_owned(), name, id: 0 }
    }

    pub(super) fn event(&self, name: &str) -> RequestInfo {
        RequestInfo { verb: "event", resource: self.resource.clone(), name: name.to_owned(), id: self.id }
    }
}

#[derive(Debug)]
pub(super) struct Faults {
    active: Mutex<Vec<ActiveFault>>,
    seen: Mutex<Vec<(RequestInfo, String)>>,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct ActiveFault {
    id: u64,
    since: usize,
    selector: Selector,
    fault: Fault,
    /// The one request that it is for, once that has come.
    taken: Option<usize>,
}

impl ActiveFault {
    fn concerns(&mut self, request: &RequestInfo) -> bool {
        self.selector.matches(request) && (!self.selector.once || *self.taken.get_or_insert(request.id) == request.id)
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self { active: Mutex::default(), seen: Mutex::default(), changed: watch::channel(0).0 }
    }
}

/// A fault that lasts until this is dropped.
#[derive(Debug)]
pub struct FaultGuard {
    faults: Arc<Faults>,
    id: u64,
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        lock(&self.faults.active).retain(|active| active.id != self.id);
        self.faults.changed.send_modify(|count| *count += 1);
    }
}

impl Faults {
    pub(super) fn inject(this: &Arc<Faults>, selector: Selector, fault: Fault) -> FaultGuard {
        let mut id = 0;
        this.changed.send_modify(|count| {
            *count += 1;
            id = *count;
        });
        let since = this.mark();
        lock(&this.active).push(ActiveFault { id, since, selector, fault, taken: None });
        FaultGuard { faults: Arc::clone(this), id }
    }

    pub(super) fn mark(&self) -> usize {
        lock(&self.seen).len()
    }

    /// Remembers a request or an event; which it is.
    pub(super) fn note(&self, request: &RequestInfo, body: &str) -> usize {
        let mut seen = lock(&self.seen);
        seen.push((request.clone(), body.to_owned()));
        seen.len()
    }

    pub(super) fn observed(&self, since: usize, selector: &Selector) -> Vec<ObservedRequest> {
        let seen = lock(&self.seen);
        let matching = seen.iter().skip(since).filter(|(request, _)| selector.matches(request));
        matching
            .map(|(request, body)| ObservedRequest {
                verb: request.verb,
                name: request.name.clone(),
                body: body.clone(),
            })
            .collect()
    }

    fn first<T>(&self, request: &RequestInfo, pick: impl Fn(&ActiveFault) -> Option<T>) -> Option<T> {
        lock(&self.active).iter_mut().filter_map(|active| active.concerns(request).then_some(&*active)).find_map(pick)
    }

    pub(super) fn refuses(&self, request: &RequestInfo) -> Option<u16> {
        self.first(request, |active| if let Fault::Refuse(code) = active.fault { Some(code) } else { None })
    }

    /// Waits as long as the request, or its answer, is held.
    pub(super) async fn held(&self, request: &RequestInfo, answer: bool) {
        let mut changed = self.changed.subscribe();
        let kind = if answer { Fault::HoldAnswer } else { Fault::HoldRequest };
        if !answer
            && let Some(time) =
                self.first(request, |active| if let Fault::Delay(time) = active.fault { Some(time) } else { None })
        {
            tokio::time::sleep(time).await;
        }
        // A response is held by the fault that was active when the request came, as long as tests end faults one by one.
        while self.first(request, |active| (active.fault == kind).then_some(())).is_some() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The path, with the resourceVersion of a watch moved into the API server's future if it is from before its restore.
    pub(super) fn rewound(&self, request: &RequestInfo, path: &str) -> String {
        let before =
            self.first(request, |active| if let Fault::Rewind(before) = active.fault { Some(before) } else { None });
        let Some(before) = before.filter(|_| request.verb == "watch") else { return path.to_owned() };
        let (head, query) = path.split_once('?').unwrap_or((path, ""));
        let moved = query.split('&').map(|one| {
            let version = one.strip_prefix("resourceVersion=").and_then(|version| version.parse::<u64>().ok());
            match version.filter(|version| (1..before).contains(version)) {
                Some(version) => format!("resourceVersion={}", version + 1_000_000_000),
                None => one.to_owned(),
            }
        });
        format!("{head}?{}", moved.collect::<Vec<_>>().join("&"))
    }

    /// The answer, made older if it is to be.
    pub(super) fn aged(&self, request: &RequestInfo, bytes: Vec<u8>) -> Vec<u8> {
        if self.first(request, |active| (active.fault == Fault::OldVersion).then_some(())).is_none() {
            return bytes;
        }
        let Ok(mut object) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!("2"));
        }
        object.to_string().into_bytes()
    }

    /// Whether a watch that was opened at that mark is dead.
    pub(super) fn frozen(&self, request: &RequestInfo, opened: usize) -> bool {
        self.first(request, |active| (active.fault == Fault::Freeze && opened <= active.since).then_some(())).is_some()
    }

    pub(super) fn drops_events(&self, request: &RequestInfo) -> bool {
        self.first(request, |active| (active.fault == Fault::DropEvents).then_some(())).is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole after every line, also of a thread that panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
