//! The active faults. For each request, the proxy asks the functions of this module what to do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::log::Log;
use super::request::{RequestInfo, Selector};

/// What the proxy does to the selected requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this status (409, 500, 503, …) and does not forward the request.
    Refuse(u16),
    /// The proxy answers with status 429 and this time in `Retry-After`, and does not forward the request.
    Throttle(Duration),
    /// The proxy resets the client's connection and does not forward the request. The proxy also resets open watches. If
    /// the selector selects all requests of one client, the fault cuts that client off.
    Reset,
    /// The proxy forwards the request, and resets the client's connection when the API server has answered. So a write
    /// is applied, and its answer is lost.
    LoseAnswer,
    /// The proxy forwards the request twice, one after the other, and sends only the second answer to the client.
    ApplyTwice,
    /// The proxy holds the request and forwards it when the fault ends.
    HoldRequest,
    /// The proxy forwards the request and holds the answer until the fault ends.
    HoldAnswer,
    /// The proxy forwards the request after this time.
    Delay(Duration),
    /// The proxy drops all watch events except bookmarks. A selector with the verb `watch` selects all events of the
    /// matching watches. A selector with the verb `event` selects single events.
    DropEvents,
    /// The proxy sends nothing more on watches that are open when the fault begins, and keeps these watches open. The fault
    /// does not affect later watches.
    Freeze,
    /// Like [`Fault::Freeze`], but when the fault ends, the proxy resets the watches for which it withheld data.
    FreezeThenReset,
    /// The proxy simulates an API server that was restored from a backup and has not reached the clients'
    /// resourceVersions yet. A watch that starts at a resourceVersion below this number gets no events, as if the API
    /// server had not reached the watch's resourceVersion.
    Rewind(u64),
    /// The proxy replaces the resourceVersion in answers by a number far below all real resourceVersions.
    OldVersion,
}

#[derive(Debug)]
pub(super) struct Faults {
    active: Mutex<Vec<ActiveFault>>,
    pub(super) log: Mutex<Log>,
    next_id: AtomicU64,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct ActiveFault {
    id: u64,
    since: usize,
    selector: Selector,
    fault: Fault,
    /// The number of the selected request, if the selector selects a single request and this request has arrived.
    taken: Option<u64>,
    /// The numbers of the matching requests that arrived before the selected request.
    skipped: BTreeSet<u64>,
}

impl ActiveFault {
    fn concerns(&mut self, request: &RequestInfo) -> bool {
        if !self.selector.matches(request) {
            return false;
        }
        if !self.selector.once || self.taken == Some(request.id) {
            return true;
        }
        if self.taken.is_some() || self.skipped.contains(&request.id) {
            return false;
        }
        if self.skipped.len() < self.selector.skipped {
            self.skipped.insert(request.id);
            return false;
        }
        self.taken = Some(request.id);
        true
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            active: Mutex::default(),
            log: Mutex::default(),
            next_id: AtomicU64::new(1),
            changed: watch::channel(0).0,
        }
    }
}

/// The guard of an active fault. The fault ends when the guard is dropped.
#[derive(Debug)]
pub struct FaultGuard {
    faults: Arc<Faults>,
    id: u64,
}

impl FaultGuard {
    /// Whether the single request of the selector has arrived. Always false if the selector can select several requests.
    pub fn has_hit(&self) -> bool {
        lock(&self.faults.active).iter().any(|active| active.id == self.id && active.taken.is_some())
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        lock(&self.faults.active).retain(|active| active.id != self.id);
        self.faults.changed.send_modify(|count| *count += 1);
    }
}

impl Faults {
    pub(super) fn inject(this: &Arc<Faults>, selector: Selector, fault: Fault) -> FaultGuard {
        let id = this.next_id();
        let since = this.mark();
        lock(&this.active).push(ActiveFault { id, since, selector, fault, taken: None, skipped: BTreeSet::new() });
        this.changed.send_modify(|count| *count += 1);
        FaultGuard { faults: Arc::clone(this), id }
    }

    pub(super) fn mark(&self) -> usize {
        lock(&self.log).mark()
    }

    /// A new number for a request or an event.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn first<T>(&self, request: &RequestInfo, pick: impl Fn(&ActiveFault) -> Option<T>) -> Option<T> {
        lock(&self.active).iter_mut().filter_map(|active| active.concerns(request).then_some(&*active)).find_map(pick)
    }

    /// Whether a fault of this kind affects the request.
    fn is(&self, request: &RequestInfo, fault: Fault) -> bool {
        self.first(request, |active| (active.fault == fault).then_some(())).is_some()
    }

    /// The status with which the proxy refuses the request, and the time after which the client may repeat the request.
    pub(super) fn refuses(&self, request: &RequestInfo) -> Option<(u16, Option<Duration>)> {
        self.first(request, |active| match active.fault {
            Fault::Refuse(code) => Some((code, None)),
            Fault::Throttle(time) => Some((429, Some(time))),
            _ => None,
        })
    }

    pub(super) fn resets(&self, request: &RequestInfo) -> bool {
        self.is(request, Fault::Reset)
    }

    pub(super) fn loses_answer(&self, request: &RequestInfo) -> bool {
        self.is(request, Fault::LoseAnswer)
    }

    pub(super) fn applies_twice(&self, request: &RequestInfo) -> bool {
        self.is(request, Fault::ApplyTwice)
    }

    /// Waits until a fault resets the open watch.
    pub(super) async fn until_reset(&self, request: &RequestInfo) {
        let mut changed = self.changed.subscribe();
        while !self.resets(request) {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// If `answer` is false, waits until no fault delays or holds the request. If `answer` is true, waits until no
    /// fault holds its answer.
    pub(super) async fn held(&self, request: &RequestInfo, answer: bool) {
        let mut changed = self.changed.subscribe();
        let kind = if answer { Fault::HoldAnswer } else { Fault::HoldRequest };
        if !answer
            && let Some(time) =
                self.first(request, |active| if let Fault::Delay(time) = active.fault { Some(time) } else { None })
        {
            tokio::time::sleep(time).await;
        }
        // The loop also waits for faults that began after the request arrived. This is harmless, because the test ends all
        // its faults, and the request continues after the last of them.
        while self.is(request, kind) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the path with which the proxy forwards a request. For a [`Fault::Rewind`], raises the resourceVersion at
    /// which a watch starts, if it is below the fault's number. The API server has not reached the raised
    /// resourceVersion, so it sends no events.
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

    /// Returns the answer that the proxy sends to the client. During a [`Fault::OldVersion`], the answer has an old
    /// resourceVersion.
    pub(super) fn aged(&self, request: &RequestInfo, bytes: Vec<u8>) -> Vec<u8> {
        if !self.is(request, Fault::OldVersion) {
            return bytes;
        }
        let Ok(mut object) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!("2"));
        }
        object.to_string().into_bytes()
    }

    /// Whether a fault of this kind freezes the watch. `opened` is the proxy's mark when the watch was opened, because a
    /// fault freezes only watches that were open when the fault began.
    pub(super) fn freezes(&self, request: &RequestInfo, opened: usize, kind: Fault) -> bool {
        self.first(request, |active| (active.fault == kind && opened <= active.since).then_some(())).is_some()
    }

    /// Waits while a [`Fault::FreezeThenReset`] freezes the watch. Returns whether such a fault froze the watch.
    pub(super) async fn was_frozen(&self, request: &RequestInfo, opened: usize) -> bool {
        let mut changed = self.changed.subscribe();
        let mut was_frozen = false;
        while self.freezes(request, opened, Fault::FreezeThenReset) {
            was_frozen = true;
            if changed.changed().await.is_err() {
                break;
            }
        }
        was_frozen
    }

    /// Whether a fault drops this event of a watch.
    pub(super) fn drops(&self, watch: &RequestInfo, event: &RequestInfo) -> bool {
        self.is(watch, Fault::DropEvents) || self.is(event, Fault::DropEvents)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic leaves the data half changed, so the data behind a poisoned lock is valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
