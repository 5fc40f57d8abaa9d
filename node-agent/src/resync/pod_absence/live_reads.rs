//! Reads the Node and pods from the API server. Decodes only the fields that the agent needs here, so malformed values in other fields do
//! no harm.

use std::collections::HashMap;
use std::time::Duration;

use bobbin_api_client::ReadError;
use bobbin_api_client::pod::MIRROR_UID;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{GetParams, Request};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::history::ReadyPeriod;
use crate::state::PodRef;

/// How long one read of a pod or Node may take.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the API server has a pod with a certain name and UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodAnswer {
    Present,
    /// No pod has the name, or the pod with that name has another UID.
    Absent,
    Unreadable,
}

/// Whether the Node is Ready, according to the API server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeAnswer {
    Ready(ReadyPeriod),
    /// The Node is not Ready, its condition Ready is unknown, or the Node does not exist.
    NotReady,
    Unreadable,
}

#[derive(Deserialize)]
struct PodBody {
    metadata: PodMetadata,
}

#[derive(Deserialize)]
struct PodMetadata {
    uid: Option<String>,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct NodeBody {
    metadata: NodeMetadata,
    status: Option<NodeStatus>,
}

#[derive(Deserialize)]
struct NodeMetadata {
    uid: Option<String>,
}

#[derive(Deserialize)]
struct NodeStatus {
    conditions: Option<Vec<NodeCondition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<String>,
}

/// Reads the pod by name and compares its UID.
pub(super) async fn read_pod(client: &Client, pod: &PodRef) -> PodAnswer {
    let path = Pod::url_path(&(), Some(&pod.namespace));
    let answer = pod_answer(get::<PodBody>(client, path, &pod.name).await, &pod.uid);
    if answer == PodAnswer::Unreadable {
        tracing::debug!(
            namespace = pod.namespace,
            name = pod.name,
            "the agent could not read a pod, so the pod's address counts as in use"
        );
    }
    answer
}

/// Reads the Node and its condition Ready.
pub(super) async fn read_node(client: &Client, name: &str) -> NodeAnswer {
    node_answer(get::<NodeBody>(client, Node::url_path(&(), None), name).await)
}

async fn get<T: DeserializeOwned>(client: &Client, path: String, name: &str) -> Result<T, ReadError> {
    let request = Request::new(path).get(name, &GetParams::default()).map_err(kube::Error::BuildRequest);
    bobbin_api_client::read(READ_TIMEOUT, async move { client.request::<T>(request?).await }).await
}

fn pod_answer(read: Result<PodBody, ReadError>, uid: &str) -> PodAnswer {
    match read {
        Ok(PodBody { metadata: PodMetadata { uid: Some(found), annotations } }) => {
            let mirrors = annotations.is_some_and(|all| all.get(MIRROR_UID).is_some_and(|mirrored| mirrored == uid));
            if found == uid || mirrors { PodAnswer::Present } else { PodAnswer::Absent }
        }
        Err(ReadError::NotFound) => PodAnswer::Absent,
        Ok(_) | Err(ReadError::Unreachable(_) | ReadError::Refused(_)) => PodAnswer::Unreadable,
    }
}

fn node_answer(read: Result<NodeBody, ReadError>) -> NodeAnswer {
    let node = match read {
        Ok(node) => node,
        Err(ReadError::NotFound) => return NodeAnswer::NotReady,
        Err(ReadError::Unreachable(_) | ReadError::Refused(_)) => return NodeAnswer::Unreadable,
    };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition.kind == "Ready" && condition.status == "True");
    match (node.metadata.uid, ready.and_then(|condition| condition.last_transition_time)) {
        (Some(uid), Some(since)) => NodeAnswer::Ready(ReadyPeriod { node_uid: uid, since }),
        _ => NodeAnswer::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use bobbin_api_client::{Refusal, UnknownWhy};
    use serde_json::{Value, json};

    use super::*;

    fn unreachable<T>() -> Result<T, ReadError> {
        Err(ReadError::Unreachable(UnknownWhy::Deadline(READ_TIMEOUT)))
    }

    fn forbidden<T>() -> Result<T, ReadError> {
        Err(ReadError::Refused(Refusal::Forbidden(String::new())))
    }

    fn found(metadata: &Value) -> Result<PodBody, ReadError> {
        serde_json::from_value(json!({"metadata": metadata}))
            .map_err(|error| ReadError::Unreachable(UnknownWhy::Transport(error.to_string())))
    }

    fn node_of(conditions: &Value) -> NodeAnswer {
        node_answer(Ok(
            serde_json::from_value(json!({"metadata": {"uid": "n"}, "status": {"conditions": conditions}})).unwrap()
        ))
    }

    #[test]
    fn a_pod_is_absent_if_no_pod_has_its_name_and_uid() {
        assert_eq!(pod_answer(Err(ReadError::NotFound), "u1"), PodAnswer::Absent);
        assert_eq!(pod_answer(found(&json!({"uid": "u2"})), "u1"), PodAnswer::Absent);
        assert_eq!(pod_answer(found(&json!({"uid": "u1"})), "u1"), PodAnswer::Present);
    }

    #[test]
    fn a_mirror_pod_proves_that_its_static_pod_is_present() {
        let mirror = json!({"uid": "u2", "annotations": {"kubernetes.io/config.hash": "hash"}});
        assert_eq!(pod_answer(found(&mirror), "hash"), PodAnswer::Present);
        assert_eq!(pod_answer(found(&mirror), "other"), PodAnswer::Absent);
    }

    #[test]
    fn an_unreadable_answer_proves_nothing() {
        for read in [unreachable(), forbidden(), found(&json!({}))] {
            assert_eq!(pod_answer(read, "u1"), PodAnswer::Unreadable);
        }
        assert_eq!(node_answer(unreachable()), NodeAnswer::Unreadable);
        assert_eq!(node_answer(forbidden()), NodeAnswer::Unreadable);
    }

    #[test]
    fn malformed_times_do_not_make_a_pod_unreadable() {
        let odd = json!({"uid": "u1", "creationTimestamp": "+9999", "managedFields": [{"time": 7}]});
        assert_eq!(pod_answer(found(&odd), "u1"), PodAnswer::Present);
    }

    #[test]
    fn only_the_condition_ready_decides_whether_a_node_is_ready() {
        let ready = |status: &str| json!([{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": status, "lastTransitionTime": "10:00"}]);
        let period = ReadyPeriod { node_uid: "n".to_owned(), since: "10:00".to_owned() };
        assert_eq!(node_of(&ready("True")), NodeAnswer::Ready(period));
        for status in ["False", "Unknown"] {
            assert_eq!(node_of(&ready(status)), NodeAnswer::NotReady);
        }
        assert_eq!(node_of(&json!([])), NodeAnswer::NotReady);
        assert_eq!(node_answer(Err(ReadError::NotFound)), NodeAnswer::NotReady, "a deleted Node is not Ready");
    }
}
