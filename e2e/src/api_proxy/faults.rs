//! The active faults, and the requests and watch events that the proxy has observed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Uri};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Selects requests. A field that is not set matches all requests.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    verbs: &'static [&'static str],
    resource: Option<&'static str>,
    name: Option<String>,
    once: bool,
}

impl Selector {
    /// Selects requests with one of these verbs. The verb `event` selects lines of watches.
    pub fn verbs(verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..Self::default() }
    }

    /// Selects only requests for this resource (plural, lower case).
    #[must_use]
    pub fn of(mut self, resource: &'static str) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Selects only requests for the object with this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Selects only the first matching request.
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

/// What the proxy does to the selected requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this status and does not forward the request.
    Refuse(u16),
    /// The proxy holds the request and forwards it when the fault ends.
    HoldRequest,
    /// The proxy forwards the request and holds the answer until the fault ends.
    HoldAnswer,
    /// The proxy forwards the request after this time.
    Delay(Duration),
    /// The proxy drops the events of watches and forwards their bookmarks.
    DropEvents,
    /// The proxy sends nothing more on watches that are open when the fault begins, and keeps them open. Later watches
    /// are not affected.
    Freeze,
    /// The proxy simulates an API server restored from a backup. Each resourceVersion below this one is in that
    /// server's future. A watch that starts at such a resourceVersion sends nothing.
    Rewind(u64),
    /// The proxy replaces the resourceVersion in answers by a number far below all earlier ones.
    OldVersion,
}

/// One observed request, or one observed line of a watch.
#[derive(Clone, Debug)]
pub struct ObservedRequest {
    /// The verb of the request; `event` for a delivered line of a watch.
    pub verb: &'static str,
    /// The name of the object, or empty if the request names none.
    pub name: String,
    /// The body of the request, or the line of the watch.
    pub body: String,
}

#[derive(Clone, Debug)]
pub(super) struct RequestInfo {
    pub(super) verb: &'static str,
    pub(super) resource: String,
    pub(super) name: String,
    /// The number of the request or event, in the order of arrival.
    pub(super) id: usize,
}

impl RequestInfo {
    /// Parses a request path `/apis/GROUP/VERSION[/namespaces/NAMESPACE]/RESOURCE[/NAME]`.
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
    /// For a selector of only the first request: the number of the selected request, once it has arrived.
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

/// The guard of an active fault. The fault ends when the guard is dropped.
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

    /// Records a request or a watch event, and returns its number.
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

    /// Waits while a fault holds the request. If `answer` is true, waits while a fault holds the answer to the request.
    pub(super) async fn held(&self, request: &RequestInfo, answer: bool) {
        let mut changed = self.changed.subscribe();
        let kind = if answer { Fault::HoldAnswer } else { Fault::HoldRequest };
        if !answer
            && let Some(time) =
                self.first(request, |active| if let Fault::Delay(time) = active.fault { Some(time) } else { None })
        {
            tokio::time::sleep(time).await;
        }
        // A fault that began after the request may hold its answer, too. Tests end faults one by one, so this does no
        // harm.
        while self.first(request, |active| (active.fault == kind).then_some(())).is_some() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the path under which to forward a request. Under [`Fault::Rewind`], the path of a watch gets a
    /// resourceVersion in the API server's future.
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

    /// Returns the answer to forward. Under [`Fault::OldVersion`], the answer has an old resourceVersion.
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

    /// Whether [`Fault::Freeze`] silences the watch that was opened at the mark `opened`.
    pub(super) fn frozen(&self, request: &RequestInfo, opened: usize) -> bool {
        self.first(request, |active| (active.fault == Fault::Freeze && opened <= active.since).then_some(())).is_some()
    }

    pub(super) fn drops_events(&self, request: &RequestInfo) -> bool {
        self.first(request, |active| (active.fault == Fault::DropEvents).then_some(())).is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panics never leaves the data half changed, so a poisoned lock can be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
