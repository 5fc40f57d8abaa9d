//! A watch that never ends: it lists the objects, watches them, and restarts after each failure. It does not interpret the
//! objects.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::backoff::{backoff, jittered};

/// The longest wait before the first retry after a failed call.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// The longest wait between two retries, even if the API server is unreachable for a long time.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// A failing watch counts as working again when its last failure is this long ago, even if no event has arrived since.
const RECOVERED_AFTER: Duration = Duration::from_secs(15);

/// The events of a watch. The stream contains no failures, because the watch logs failures and retries.
///
/// After each failure, the watch lists all objects again and sends `Init`, one `InitApply` per object, and `InitDone`. An
/// object without an `InitApply` no longer exists.
pub struct Watch<K> {
    events: BoxStream<'static, Event<K>>,
    age: WatchAge,
}

impl<K> Watch<K> {
    /// Returns a handle that reports how current this watch is.
    pub fn age(&self) -> WatchAge {
        self.age.clone()
    }
}

impl<K> Stream for Watch<K> {
    type Item = Event<K>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event<K>>> {
        self.events.poll_next_unpin(context)
    }
}

/// Reports how current a watch is.
#[derive(Clone)]
pub struct WatchAge(Arc<Mutex<Seen>>);

struct Seen {
    synced: bool,
    failing_since: Option<Instant>,
    last_failure: Instant,
}

impl WatchAge {
    fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Seen { synced: false, failing_since: None, last_failure: now })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock())
    }

    /// Whether the watch has completed its first list.
    pub fn synced(&self) -> bool {
        self.with(|seen| seen.synced)
    }

    /// Returns how long the watch has been failing, or `None` if the watch is working.
    pub fn failing(&self) -> Option<Duration> {
        self.with(|seen| {
            let since = seen.failing_since?;
            if seen.last_failure.elapsed() > RECOVERED_AFTER {
                seen.failing_since = None;
                return None;
            }
            Some(since.elapsed())
        })
    }

    fn failed(&self) -> Instant {
        self.with(|seen| {
            seen.last_failure = Instant::now();
            *seen.failing_since.get_or_insert_with(Instant::now)
        })
    }

    fn event<K>(&self, event: &Event<K>) {
        // `Init` only means that the watcher is about to list the objects. The LIST request may still fail.
        if matches!(event, Event::Init) {
            return;
        }
        self.with(|seen| {
            seen.failing_since = None;
            seen.synced |= matches!(event, Event::InitDone);
        });
    }
}

/// Watches the objects of `api` forever. Create `api` with [`Clients::watches`](crate::Clients).
///
/// If `config` has no timeout, each watch call lasts 60 to 120 s, so that the watch notices a dead connection within that
/// time. The objects in the events have no `managedFields`.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let seconds = config.timeout.unwrap_or_else(|| jittered(Duration::from_mins(2)).as_secs() as u32);
    let age = WatchAge::new();
    let config = config.timeout(seconds);
    let open = move || watcher::watcher(api.clone(), config.clone()).boxed();
    let state = (open(), age.clone(), kind, 0_u32);
    let events = futures::stream::unfold(state, move |(mut inner, age, kind, mut failures)| {
        let open = open.clone();
        async move {
            loop {
                match inner.next().await? {
                    Ok(mut event) => {
                        age.event(&event);
                        if !matches!(event, Event::Init) {
                            failures = 0;
                        }
                        if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &mut event {
                            object.meta_mut().managed_fields = None;
                        }
                        return Some((event, (inner, age, kind, failures)));
                    }
                    Err(error) => {
                        let since = age.failed();
                        if failures == 0 {
                            tracing::info!(kind, %error, "a watch failed; it restarts");
                        } else {
                            tracing::debug!(kind, %error, failures, failing_for = ?since.elapsed(), "a watch keeps failing");
                        }
                        tokio::time::sleep(backoff(failures, RETRY_BASE, RETRY_CAP)).await;
                        failures = failures.saturating_add(1);
                        // List again instead of resuming the watch. After a restore of etcd from an older snapshot, the
                        // watch's resourceVersion may be above the newest one. The API server accepts such a watch, but
                        // sends no events on it.
                        inner = open();
                    }
                }
            }
        }
    });
    Watch { events: events.boxed(), age }
}
