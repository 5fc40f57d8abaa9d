//! Fetches a status document through the API server's pod proxy, with the user's rights. The user's token goes only to the API server.

use std::time::Duration;

use bobbin_agent_status::{AgentStatus, PATH};
use bobbin_api_client::outcome::with_causes;
use kube::Client;
use kube::core::Status;

use super::AgentPod;

/// The deadline of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a status document is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(
        "the API server forbids the pod proxy to the agent in Pod {0}: {1}. Ask an administrator for the right to get pods/proxy in that namespace"
    )]
    Forbidden(String, String),
    #[error("the agent in Pod {0} has no status document, because it is older than this command: upgrade Bobbin")]
    Older(String),
    #[error(
        "Pod {0} has no port named health, so the command can't ask the agent: install the agents with the chart of Bobbin"
    )]
    NoPort(String),
    #[error("Pod {0} has just been deleted, so its agent can't be asked: run the command again")]
    Gone(String),
    #[error("Pod {0} is not ready, and its agent does not answer ({3}): kubectl -n {1} describe pod {2}")]
    NotReady(String, String, String, String),
    #[error(
        "the API server can't reach the agent in Pod {0}: {1}; if agent.bindAddress is 127.0.0.1, run on the node: kubectl bobbin node --socket"
    )]
    Unreachable(String, String),
    #[error("the agent in Pod {0} did not answer within {seconds} s; see its log: kubectl -n {1} logs {2}", seconds = FETCH_TIMEOUT.as_secs())]
    TimedOut(String, String, String),
    #[error(
        "the answer of Pod {0} is not the status document of node {1}: {2}; check which program has the pod's port"
    )]
    Unreadable(String, String, String),
}

/// Fetches the status document of the agent in a pod.
pub(crate) async fn fetch(client: &Client, pod: &AgentPod) -> Result<AgentStatus, FetchError> {
    let full_name = pod.full_name();
    let Some(port) = pod.port else { return Err(FetchError::NoPort(full_name)) };
    let path = format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy{PATH}", pod.namespace, pod.name);
    let request =
        http::Request::get(path).body(Vec::new()).map_err(|error| unreadable(pod, &format!("no request: {error}")))?;
    match tokio::time::timeout(FETCH_TIMEOUT, client.request_text(request)).await {
        Err(_) => Err(FetchError::TimedOut(full_name, pod.namespace.clone(), pod.name.clone())),
        Ok(Ok(text)) => parse(&text, &pod.node).map_err(|why| unreadable(pod, &why)),
        Ok(Err(kube::Error::Api(status))) => Err(refused(pod, &status)),
        Ok(Err(error)) => {
            Err(FetchError::Unreachable(full_name, format!("no contact with the API server: {}", with_causes(&error))))
        }
    }
}

/// Reads the document of a node. An empty name of a node fits every document.
pub(super) fn parse(text: &str, node: &str) -> Result<AgentStatus, String> {
    let status: AgentStatus = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match status.node.as_str() {
        "" => Err("the answer names no node".to_owned()),
        named if node.is_empty() || named == node => Ok(status),
        named => Err(format!("the answer is of node {named}")),
    }
}

fn unreadable(pod: &AgentPod, why: &str) -> FetchError {
    FetchError::Unreadable(pod.full_name(), pod.node.clone(), why.to_owned())
}

/// Why the API server or the agent refused a request. The API server's own errors have a reason, for example `NotFound`.
fn refused(pod: &AgentPod, status: &Status) -> FetchError {
    let full_name = pod.full_name();
    match status.code {
        403 => FetchError::Forbidden(full_name, status.message.clone()),
        404 if status.reason == "NotFound" => FetchError::Gone(full_name),
        404 => FetchError::Older(full_name),
        _ if !pod.ready => {
            FetchError::NotReady(full_name, pod.namespace.clone(), pod.name.clone(), status.message.clone())
        }
        _ => FetchError::Unreachable(full_name, status.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: bool) -> AgentPod {
        AgentPod { namespace: "bobbin-system".to_owned(), name: "a".to_owned(), ready, ..AgentPod::default() }
    }

    fn text(ready: bool, code: u16, reason: &str) -> String {
        refused(&pod(ready), &Status::failure("why", reason).with_code(code)).to_string()
    }

    #[test]
    fn each_refusal_has_its_sentence() {
        assert!(text(true, 403, "Forbidden").contains("the right to get pods/proxy"));
        assert!(text(true, 404, "NotFound").contains("has just been deleted"));
        assert!(text(true, 404, "Failed to parse error data").contains("is older than this command"));
        assert!(text(true, 503, "ServiceUnavailable").contains("can't reach the agent in Pod bobbin-system/a: why"));
        assert!(text(false, 503, "ServiceUnavailable").contains("is not ready"));
    }

    #[test]
    fn a_document_of_another_node_or_program_is_refused() {
        assert_eq!(parse(r#"{"node": "n1"}"#, "n1").map(|status| status.node), Ok("n1".to_owned()));
        assert!(parse(r#"{"node": "n2"}"#, "n1").is_err());
        assert!(parse("{}", "").is_err() && parse("<html>", "n1").is_err());
    }
}
