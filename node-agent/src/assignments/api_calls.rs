//! One call for one step of a record's write queue, and what its answer means.

use std::time::Duration;

use bobbin_api_client::{self as apiserver, Lenient, ReadError, Refusal, UnknownWhy};
use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::Resource;
use kube::api::{DeleteParams, Preconditions};

use super::queue::{Outcome, Step};
use super::{Inner, RecordRead, record_name};
use crate::cluster::freshness::Kind;
use crate::state::Attachment;

/// How long one call may take. The ADD waits less; this is for the record itself.
const DEADLINE: Duration = Duration::from_secs(5);

/// The record of an attachment, and its name; `None` without an address.
pub(super) fn record_of(attachment: &Attachment, node_name: &str) -> Option<(String, IPAssignment)> {
    let name = record_name(attachment.pair)?;
    let pod = &attachment.pod;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let spec = IPAssignmentSpec {
        pool_name: attachment.pool.clone(),
        block_name: attachment.block.clone(),
        node_name: node_name.to_owned(),
        ipv4: attachment.pair.ipv4.map(|address| address.to_string()),
        ipv6: attachment.pair.ipv6.map(|address| address.to_string()),
        container_id: attachment.key.container_id.clone(),
        if_name: attachment.key.if_name.clone(),
        pod_namespace: given(&pod.namespace),
        pod_name: given(&pod.name),
        pod_uid: given(&pod.uid),
        created_at: MicroTime(attachment.created_at),
        boot_id: attachment.boot_id.clone(),
    };
    Some((name.clone(), IPAssignment::new(&name, spec)))
}

impl Inner {
    /// Makes the call of a step.
    pub(super) async fn call(&self, name: &str, step: Step) -> Outcome {
        let api: Api<Lenient<IPAssignment>> = Api::all(self.clients.requests.clone());
        match step {
            Step::Post(record) => {
                let floor = self.freshness.version(Kind::Records);
                let outcome = apiserver::write(DEADLINE, apiserver::create(&api, &*record)).await;
                self.note(&outcome);
                if let apiserver::Outcome::Done(created) = &outcome {
                    let version = created.meta().resource_version.as_deref().unwrap_or_default();
                    self.freshness.saw_version(Kind::Records, version, floor);
                }
                meant_by_post(outcome)
            }
            Step::Get(key) => match apiserver::read(DEADLINE, api.get(name)).await {
                Ok(found) => whose(RecordRead::of(found), &key, &self.node_name),
                Err(ReadError::NotFound) => Outcome::Absent,
                Err(ReadError::Refused(refusal)) => Outcome::Refused(refusal.to_string()),
                Err(ReadError::Unreachable(why)) => {
                    self.freshness.outcome(Some(&why), boot_time());
                    unknown(name, &why)
                }
            },
            Step::Delete(uid) => {
                let only = Preconditions { uid: Some(uid), resource_version: None };
                let params = DeleteParams::default().preconditions(only);
                let outcome = apiserver::write(DEADLINE, apiserver::delete(&api, name, &params)).await;
                self.note(&outcome);
                match outcome {
                    apiserver::Outcome::Done(())
                    | apiserver::Outcome::Refused(Refusal::NotFound | Refusal::Conflict) => Outcome::Gone,
                    apiserver::Outcome::Refused(refusal) => Outcome::Refused(refusal.to_string()),
                    apiserver::Outcome::Unknown(why) => unknown(name, &why),
                }
            }
        }
    }

    fn note<T>(&self, outcome: &apiserver::Outcome<T>) {
        let unanswered = match outcome {
            apiserver::Outcome::Unknown(why) => Some(why),
            apiserver::Outcome::Done(_) | apiserver::Outcome::Refused(_) => None,
        };
        self.freshness.outcome(unanswered, boot_time());
    }
}

fn meant_by_post(outcome: apiserver::Outcome<Lenient<IPAssignment>>) -> Outcome {
    match outcome {
        apiserver::Outcome::Done(created) => Outcome::Ours(created.meta().uid.clone().unwrap_or_default()),
        apiserver::Outcome::Refused(Refusal::AlreadyExists) => Outcome::Exists,
        // Not the record is missing but its kind: the definitions are not installed yet.
        apiserver::Outcome::Refused(Refusal::NotFound) => Outcome::Unknown,
        // An API server that has just started refuses all until its rights and policies are loaded. What it really forbids stays
        // queued: the address is the node's by its claim, and a record is never given up.
        apiserver::Outcome::Refused(Refusal::Forbidden(why)) => {
            tracing::warn!(%why, "the API server forbids a record; trying again");
            Outcome::Unknown
        }
        apiserver::Outcome::Refused(refusal) => Outcome::Refused(refusal.to_string()),
        apiserver::Outcome::Unknown(why) => {
            tracing::debug!(%why, "the outcome of a create is unknown");
            Outcome::Unknown
        }
    }
}

fn unknown(name: &str, why: &UnknownWhy) -> Outcome {
    tracing::debug!(name, %why, "no answer about the record of an address");
    Outcome::Unknown
}

/// Whether a record is the attachment's.
fn whose(found: RecordRead, key: &AttachmentKey, node_name: &str) -> Outcome {
    if found.key == *key && found.node_name == node_name {
        return Outcome::Ours(found.uid);
    }
    Outcome::Others { by: found.by(), node: found.node_name, holder: found.key, uid: found.uid }
}

#[cfg(test)]
mod tests;
