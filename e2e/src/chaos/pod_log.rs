//! Watches the pods of a chaos run. Counts the pods that got an address and the deleted pods, and records how long the
//! slowest pod took to become Ready.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// The number of pods that got an address.
    pub adds: usize,
    /// The number of deleted pods that had an address.
    pub dels: usize,
    /// The longest time that a pod took to become Ready after it was scheduled.
    pub longest_start: Duration,
}

/// The pods that a watch has shown. All clones of this value share the same pods.
#[derive(Clone, Default)]
pub struct PodLog(Arc<Mutex<Pods>>);

#[derive(Default)]
struct Pods {
    counts: PodCounts,
    known: HashMap<String, Start>,
    listed: Vec<String>,
}

struct Start {
    scheduled: Option<Instant>,
    has_address: bool,
    ready: bool,
}

impl PodLog {
    /// Watches the pods of a namespace until the caller drops the future.
    pub async fn watch(self, client: kube::Client, namespace: &str) {
        let api: Api<v1::Pod> = Api::namespaced(client, namespace);
        let mut events = watcher(api, Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            // Ignore an error, because the watch tries again by itself.
            if let Ok(event) = event {
                self.observe(event, Instant::now());
            }
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> PodCounts {
        self.lock().counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pods> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn observe(&self, event: Event<v1::Pod>, now: Instant) {
        let mut pods = self.lock();
        match event {
            Event::Init => pods.listed.clear(),
            Event::InitApply(pod) => {
                pods.listed.extend(pod.metadata.uid.clone());
                pods.apply(&pod, now);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut pods.listed);
                let gone: Vec<String> = pods.known.keys().filter(|uid| !listed.contains(uid)).cloned().collect();
                for uid in &gone {
                    pods.delete(uid);
                }
            }
            Event::Apply(pod) => pods.apply(&pod, now),
            Event::Delete(pod) => pods.delete(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }
}

impl Pods {
    fn apply(&mut self, pod: &v1::Pod, now: Instant) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let status = pod.status.as_ref();
        let has = |condition: &str| {
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|one| one.type_ == condition && one.status == "True")
        };
        let addresses = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        let start = self.known.entry(uid).or_insert(Start { scheduled: None, has_address: false, ready: false });
        if has("PodScheduled") {
            start.scheduled.get_or_insert(now);
        }
        if !addresses.is_empty() && !std::mem::replace(&mut start.has_address, true) {
            self.counts.adds += 1;
        }
        if has("Ready") && !std::mem::replace(&mut start.ready, true) {
            let took = start.scheduled.map_or(Duration::ZERO, |scheduled| now - scheduled);
            self.counts.longest_start = self.counts.longest_start.max(took);
        }
    }

    fn delete(&mut self, uid: &str) {
        if self.known.remove(uid).is_some_and(|start| start.has_address) {
            self.counts.dels += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, conditions: &[&str], ips: &[&str]) -> v1::Pod {
        let conditions: Vec<_> = conditions.iter().map(|type_| json!({"type": type_, "status": "True"})).collect();
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid}, "status": {"conditions": conditions, "podIPs": ips},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_counts_once_and_its_start_lasts_from_scheduled_to_ready() {
        let (log, begin) = (PodLog::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        log.observe(Event::Apply(pod("a", &["PodScheduled"], &[])), begin);
        for second in 2..5 {
            log.observe(Event::Apply(pod("a", &["PodScheduled", "Ready"], &["10.0.0.1"])), after(second));
        }
        log.observe(Event::Apply(pod("waits", &["PodScheduled"], &[])), begin);
        log.observe(Event::Delete(pod("waits", &[], &[])), after(9));
        assert_eq!(log.counts(), PodCounts { adds: 1, dels: 0, longest_start: Duration::from_secs(2) });
        // The watch missed the deletion of pod `a`, and its new list does not contain this pod.
        log.observe(Event::Init, after(9));
        log.observe(Event::InitApply(pod("b", &["PodScheduled"], &["10.0.0.2"])), after(9));
        log.observe(Event::InitDone, after(9));
        assert_eq!(log.counts(), PodCounts { adds: 2, dels: 1, longest_start: Duration::from_secs(2) });
    }
}
