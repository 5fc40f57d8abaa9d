//! Makes the calls of the address queues and interprets the API server's answers.

use std::time::Duration;

use bobbin_api_client::{self as api_client, Lenient, ReadError, Refusal, UnknownWhy};
use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use bobbin_datapath::boot_time;
use bobbin_ipam::AttachmentKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::Resource;
use kube::api::{DeleteParams, Preconditions};

use super::queue::{AssignmentCall, CallResult};
use super::{AssignmentInfo, WriterState, assignment_name};
use crate::cluster::freshness::WatchedKind;
use crate::state::Attachment;

/// How long one call about an assignment may take. An ADD usually waits for a shorter time.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The assignment of an attachment, and the assignment's name. Returns `None` for an attachment without an address.
pub(super) fn assignment_of(attachment: &Attachment, node_name: &str) -> Option<(String, IPAssignment)> {
    let name = assignment_name(attachment.pair)?;
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

impl WriterState {
    /// Sends one call about an assignment to the API server.
    pub(super) async fn call(&self, name: &str, step: AssignmentCall) -> CallResult {
        let api: Api<Lenient<IPAssignment>> = Api::all(self.clients.requests.clone());
        match step {
            AssignmentCall::Create(assignment) => {
                let floor = self.freshness.version(WatchedKind::Assignments);
                let outcome = api_client::write(CALL_TIMEOUT, api_client::create(&api, &*assignment)).await;
                self.note_contact(&outcome);
                if let api_client::Outcome::Done(created) = &outcome {
                    let version = created.meta().resource_version.as_deref().unwrap_or_default();
                    self.freshness.observe_version(WatchedKind::Assignments, version, floor);
                }
                create_result(outcome)
            }
            AssignmentCall::Get(key) => {
                let found = api_client::read(CALL_TIMEOUT, api.get(name)).await;
                self.freshness.observe_read(&found, boot_time());
                match found {
                    Ok(found) => owner_result(AssignmentInfo::of(found), &key, &self.node_name),
                    Err(ReadError::NotFound) => CallResult::Absent,
                    Err(ReadError::Refused(refusal)) => CallResult::Refused(refusal.to_string()),
                    Err(ReadError::Unreachable(why)) => unknown(name, &why),
                }
            }
            AssignmentCall::Delete(uid) => {
                let only = Preconditions { uid: Some(uid), resource_version: None };
                let params = DeleteParams::default().preconditions(only);
                let outcome = api_client::write(CALL_TIMEOUT, api_client::delete(&api, name, &params)).await;
                self.note_contact(&outcome);
                match outcome {
                    api_client::Outcome::Done(()) | api_client::Outcome::Refused(Refusal::NotFound) => {
                        CallResult::Deleted
                    }
                    api_client::Outcome::Refused(Refusal::Conflict) => CallResult::OtherUid,
                    api_client::Outcome::Refused(refusal) => CallResult::Refused(refusal.to_string()),
                    api_client::Outcome::Unknown(why) => unknown(name, &why),
                }
            }
        }
    }

    fn note_contact<T>(&self, outcome: &api_client::Outcome<T>) {
        let unanswered = match outcome {
            api_client::Outcome::Unknown(why) => Some(why),
            api_client::Outcome::Done(_) | api_client::Outcome::Refused(_) => None,
        };
        self.freshness.observe_call(unanswered, boot_time());
    }
}

fn create_result(outcome: api_client::Outcome<Lenient<IPAssignment>>) -> CallResult {
    match outcome {
        api_client::Outcome::Done(created) => CallResult::Own(created.meta().uid.clone().unwrap_or_default()),
        api_client::Outcome::Refused(Refusal::AlreadyExists) => CallResult::Exists,
        // The API server answers "not found" while the CustomResourceDefinition of IPAssignment is not installed. The create may succeed
        // later, so keep the assignment queued.
        api_client::Outcome::Refused(Refusal::NotFound) => CallResult::Unknown,
        // While an API server starts, it forbids all calls until it has loaded the RBAC rules. It also rejects writes as invalid until
        // it has read the parameters of the admission policies. So keep the assignment queued.
        api_client::Outcome::Refused(Refusal::Forbidden(why) | Refusal::Invalid(why)) => {
            tracing::warn!(%why, "the API server forbids the agent to create an assignment. The agent repeats the create. If this message repeats, check ClusterRole bobbin-agent and the admission policies");
            CallResult::Unknown
        }
        api_client::Outcome::Refused(Refusal::Denied(why)) => CallResult::Denied(why),
        api_client::Outcome::Refused(refusal) => CallResult::Refused(refusal.to_string()),
        api_client::Outcome::Unknown(why) => {
            tracing::debug!(%why, "the agent does not know whether the API server created an assignment, so the agent reads the assignment");
            CallResult::Unknown
        }
    }
}

fn unknown(name: &str, why: &UnknownWhy) -> CallResult {
    tracing::debug!(name, %why, "the agent does not know the outcome of a call for an assignment, so the agent repeats the call");
    CallResult::Unknown
}

/// Checks whether `found`, an assignment that the agent has read, belongs to this node's attachment with the key `key`.
fn owner_result(found: AssignmentInfo, key: &AttachmentKey, node_name: &str) -> CallResult {
    if found.key == *key && found.node_name == node_name {
        return CallResult::Own(found.uid);
    }
    CallResult::OtherOwner { by: found.by(), node: found.node_name, holder: found.key, uid: found.uid }
}

#[cfg(test)]
mod tests;
