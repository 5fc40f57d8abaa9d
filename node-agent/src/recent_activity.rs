//! What the agent did lately, for the status document: failed ADDs and DELs, resyncs, repairs, broken attachments, and the
//! installed files. Lists are bounded.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bobbin_agent_status::{CallError, Incident, InstallationProblem, InstallationStatus, NetworkStatus, ResyncStatus};
use bobbin_api_client::message::shortened;
use bobbin_cni_wire::{CniError, Verb, code};
use bobbin_ipam::AttachmentKey;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::state::PodRef;

/// How many failed calls the agent remembers.
const MAX_ERRORS: usize = 20;
/// How many repairs, and how many unrepaired differences, the agent remembers.
const MAX_REPAIRS: usize = 20;
/// The maximum length of a remembered text, in bytes.
const MAX_TEXT: usize = 600;

/// The agent's recent activity. Every method takes the lock and returns without waiting for IO.
#[derive(Debug, Default)]
pub struct RecentActivity(Mutex<Activity>);

/// A copy of the agent's recent activity.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// The last failed ADDs and DELs, the newest last.
    pub errors: VecDeque<CallError>,
    /// The last resync.
    pub resync: ResyncStatus,
    /// The repairs of the node's network.
    pub network: NetworkStatus,
    /// The CNI plugin and the CNI configuration on the node; `None` before the first pass of the installer.
    pub installation: Option<InstallationStatus>,
    /// The broken attachments, each with the time at which the agent first found it broken.
    pub broken: HashMap<AttachmentKey, Timestamp>,
}

impl RecentActivity {
    /// Remembers a failed ADD or DEL. Ignores other verbs.
    pub fn call_failed(&self, verb: Verb, key: &AttachmentKey, pod: PodRef, error: &CniError, now: Timestamp) {
        if !matches!(verb, Verb::Add | Verb::Del) {
            return;
        }
        let call = CallError {
            time: Some(now),
            verb: verb.word().to_owned(),
            container_id: key.container_id.clone(),
            pod_namespace: pod.namespace,
            pod_name: pod.name,
            error: public_text(error),
        };
        push(&mut self.0.lock().errors, call, MAX_ERRORS);
    }

    /// Remembers a successful resync. The next one begins after `next`, if no change triggers it earlier.
    pub fn resync_succeeded(&self, next: Duration, now: Timestamp) {
        let next = now.saturating_add(next).ok();
        self.0.lock().resync = ResyncStatus { succeeded: Some(now), next, failure: None };
    }

    /// Remembers a failed resync. The agent repeats it after `next`.
    pub fn resync_failed(&self, why: &str, next: Duration, now: Timestamp) {
        let resync = &mut self.0.lock().resync;
        resync.next = now.saturating_add(next).ok();
        resync.failure = Some(incident(why, now));
    }

    /// Remembers the repairs of one reconcile pass, and the differences that the pass could not repair.
    pub fn reconciled(&self, repaired: &[String], not_repaired: &[String], now: Timestamp) {
        let network = &mut self.0.lock().network;
        network.repaired += repaired.len() as u64;
        network.last_repairs.extend(repaired.iter().map(|what| incident(what, now)));
        let surplus = network.last_repairs.len().saturating_sub(MAX_REPAIRS);
        network.last_repairs.drain(..surplus);
        network.not_repaired = not_repaired.iter().take(MAX_REPAIRS).map(|what| shortened(what, MAX_TEXT)).collect();
    }

    /// Remembers a pass of the installer: the files that it restored, and the problems that exist now. Each problem is a pair: the reason
    /// of its event, and its message. A problem that the previous pass also found keeps its time.
    pub fn installed<'a>(
        &self,
        restored: impl IntoIterator<Item = String>,
        problems: impl IntoIterator<Item = (&'a str, &'a str)>,
        now: Timestamp,
    ) {
        let mut activity = self.0.lock();
        let installation = activity.installation.get_or_insert_default();
        for file in restored {
            installation.restored += 1;
            installation.last_restored = Some(incident(&file, now));
        }
        let before = std::mem::take(&mut installation.problems);
        installation.problems.extend(problems.into_iter().map(|(reason, sentence)| {
            let what = shortened(sentence, MAX_TEXT);
            // If no problem of the previous pass has the same text, take the time of a problem with the same reason. The text of a lasting
            // problem may change, for example the error of a write.
            let of_reason = || before.iter().filter(|known| known.reason == reason);
            let known = of_reason().find(|known| known.what == what).or_else(|| of_reason().next());
            let since = known.map_or(Some(now), |known| known.since);
            InstallationProblem { reason: reason.to_owned(), since, what }
        }));
    }

    /// Sets the broken attachments. An attachment that was already set as broken keeps its time.
    pub fn set_broken(&self, keys: impl IntoIterator<Item = AttachmentKey>, now: Timestamp) {
        let broken = &mut self.0.lock().broken;
        let before = std::mem::take(broken);
        broken.extend(keys.into_iter().map(|key| {
            let since = before.get(&key).copied().unwrap_or(now);
            (key, since)
        }));
    }

    /// A copy of the activity.
    pub fn get(&self) -> Activity {
        self.0.lock().clone()
    }
}

/// Returns the text of an error, but leaves out data from the runtime's call. A decoding error may quote the call's configuration or
/// environment, and any client of the metrics port can read the status document.
fn public_text(error: &CniError) -> String {
    match error.code {
        code::DECODING_FAILURE | code::INVALID_CONFIG | code::INVALID_ENVIRONMENT => {
            format!("the call is invalid (code {}); see the agent's log for the reason", error.code.number)
        }
        _ => shortened(&error.to_string(), MAX_TEXT),
    }
}

fn incident(what: &str, now: Timestamp) -> Incident {
    Incident { time: Some(now), what: shortened(what, MAX_TEXT) }
}

fn push<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests;
