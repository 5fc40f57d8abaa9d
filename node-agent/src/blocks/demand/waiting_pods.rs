//! The pods that are waiting for an address of a full pool.
//!
//! For each retry of an ADD, kubelet creates a new sandbox with a new container ID, so one pod's wait spans many ADDs. The agent logs when
//! a wait begins and ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bobbin_ipam::AttachmentKey;
use parking_lot::{Mutex, MutexGuard};

use crate::state::PodRef;

/// The agent assumes that a pod no longer waits if the runtime has made no ADD for the pod for this long. kubelet retries an ADD at least
/// every few minutes.
const WAIT_EXPIRY_TIMEOUT: Duration = Duration::from_mins(10);

/// The pod or container that waits for an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Waiter {
    /// A pod, whatever its container ID is.
    Pod(PodRef),
    /// A container for which the runtime named no pod.
    Container(AttachmentKey),
}

impl Waiter {
    /// The pod or container for which the runtime called ADD.
    pub fn of(pod: &PodRef, key: &AttachmentKey) -> Waiter {
        if pod.name.is_empty() { Waiter::Container(key.clone()) } else { Waiter::Pod(pod.clone()) }
    }
}

impl std::fmt::Display for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Waiter::Pod(pod) => write!(f, "pod {}/{}", pod.namespace, pod.name),
            Waiter::Container(key) => write!(f, "container {key}"),
        }
    }
}

#[derive(Clone, Debug)]
struct Wait {
    pool: String,
    since: Instant,
    last_try: Instant,
    tries: u32,
}

/// A wait for an address that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The pool that was full when the wait began.
    pub pool: String,
    /// The time from the first ADD that found no address to the end of the wait.
    pub took: Duration,
    /// How many ADDs of the pod or container found no address.
    pub tries: u32,
}

impl Wait {
    fn ended(self, at: Instant) -> Waited {
        Waited { pool: self.pool, took: at.duration_since(self.since), tries: self.tries }
    }
}

/// The waits of all pods and containers for addresses. A wait ends when the pod gets an address, or when the runtime gives up.
#[derive(Debug, Default)]
pub struct WaitingPods(Mutex<HashMap<Waiter, Wait>>);

impl WaitingPods {
    /// Records an ADD that found no address in the pool. Returns true if a new wait begins with this ADD.
    pub fn found_none(&self, waiter: &Waiter, pool: &str, now: Instant) -> bool {
        let mut waits = self.waits();
        if let Some(wait) = waits.get_mut(waiter) {
            wait.last_try = now;
            wait.tries = wait.tries.saturating_add(1);
            return false;
        }
        let wait = Wait { pool: pool.to_owned(), since: now, last_try: now, tries: 1 };
        waits.insert(waiter.clone(), wait);
        true
    }

    /// Records an ADD that got an address. Returns the wait that this ADD ends, if any.
    pub fn served(&self, waiter: &Waiter, now: Instant) -> Option<Waited> {
        Some(self.waits().remove(waiter)?.ended(now))
    }

    /// Ends the waits of pods and containers for which the runtime no longer calls ADD, for example because the pod was deleted.
    pub fn expired(&self, now: Instant) -> Vec<(Waiter, Waited)> {
        let idle = |wait: &Wait| now.duration_since(wait.last_try) >= WAIT_EXPIRY_TIMEOUT;
        let ended = self.waits().extract_if(|_, wait| idle(wait)).collect::<Vec<_>>();
        ended
            .into_iter()
            .map(|(waiter, wait)| {
                let last_try = wait.last_try;
                (waiter, wait.ended(last_try))
            })
            .collect()
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<Waiter, Wait>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Waiter {
        let pod = PodRef { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") };
        Waiter::of(&pod, &AttachmentKey::new("c1", "eth0"))
    }

    #[test]
    fn a_wait_begins_once_however_often_the_runtime_tries_with_new_containers() {
        let (waits, start) = (WaitingPods::default(), Instant::now());
        assert!(waits.found_none(&pod("web"), "default", start));
        for minute in 1..5 {
            assert!(!waits.found_none(&pod("web"), "default", start + Duration::from_mins(minute)));
        }
        assert!(waits.found_none(&pod("db"), "default", start));
        let waited = waits.served(&pod("web"), start + Duration::from_mins(6)).unwrap();
        assert_eq!(waited, Waited { pool: "default".to_owned(), took: Duration::from_mins(6), tries: 5 });
        assert_eq!(waits.served(&pod("web"), start), None);
    }

    #[test]
    fn a_wait_ends_when_the_runtime_gives_up_and_its_next_try_begins_another() {
        let (waits, start) = (WaitingPods::default(), Instant::now());
        assert!(waits.found_none(&pod("web"), "default", start));
        assert!(waits.expired(start + WAIT_EXPIRY_TIMEOUT / 2).is_empty());
        let ended = waits.expired(start + WAIT_EXPIRY_TIMEOUT);
        let waited = Waited { pool: "default".to_owned(), took: Duration::ZERO, tries: 1 };
        assert_eq!(ended, [(pod("web"), waited)]);
        assert!(waits.found_none(&pod("web"), "default", start + WAIT_EXPIRY_TIMEOUT));
    }

    #[test]
    fn containers_without_a_pod_wait_each_for_itself() {
        let waits = WaitingPods::default();
        let container = |id: &str| Waiter::of(&PodRef::default(), &AttachmentKey::new(id, "eth0"));
        assert!(waits.found_none(&container("c1"), "default", Instant::now()));
        assert!(waits.found_none(&container("c2"), "default", Instant::now()));
        assert_eq!(container("c1").to_string(), format!("container {}", AttachmentKey::new("c1", "eth0")));
        assert_eq!(pod("web").to_string(), "pod shop/web");
    }
}
