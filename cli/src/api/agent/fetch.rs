//! Fetches a status document through the API server's pod proxy, with the user's rights. The user's token goes only to the API server.

use std::time::Duration;

use axum::body;
use bobbin_agent_status::{AgentStatus, PATH};
use http::StatusCode;
use kube::Client;
use kube::client::Body;
use kube::core::Status;

use super::AgentPod;
use crate::print::output::escaped;

/// The deadline of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of an answer, in bytes. A document of a node with 1000 pods has less than 1 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The maximum length of the API server's or agent's message in an error, in characters.
const MAX_MESSAGE: usize = 300;

/// Why a status document is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(
        "the API server forbids the pod proxy to the agent in Pod {0}: {1}. Ask an administrator for the right to get pods/proxy in that namespace"
    )]
    Forbidden(String, String),
    #[error(
        "the agent in Pod {0} has no status document, because the agent is older than this command: upgrade Bobbin"
    )]
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
    let request = http::Request::get(path)
        .body(Body::empty())
        .map_err(|error| unreadable(pod, &format!("no request: {error}")))?;
    let timed_out = || FetchError::TimedOut(full_name, pod.namespace.clone(), pod.name.clone());
    match tokio::time::timeout(FETCH_TIMEOUT, ask(client, pod, request)).await.map_err(|_| timed_out())?? {
        (code, text) if code.is_success() => parse(&text, &pod.node).map_err(|why| unreadable(pod, &why)),
        (code, text) => Err(refused(pod, &refusal(code, &text))),
    }
}

/// Sends the request, and reads at most `MAX_ANSWER` bytes of the answer. kube's own functions have no such limit.
async fn ask(
    client: &Client,
    pod: &AgentPod,
    request: http::Request<Body>,
) -> Result<(StatusCode, String), FetchError> {
    let no_contact =
        |error| FetchError::Unreachable(pod.full_name(), format!("no contact with the API server: {error}"));
    let (head, body) = client.send(request).await.map_err(no_contact)?.into_parts();
    let cut = |error| unreadable(pod, &format!("the answer breaks off, or has more than {MAX_ANSWER} bytes ({error})"));
    let bytes = body::to_bytes(body::Body::new(body), MAX_ANSWER).await.map_err(cut)?;
    Ok((head.status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads the refusal from an answer. The API server sends a Status object. An agent sends plain text, which becomes the message of a new
/// Status.
fn refusal(code: StatusCode, text: &str) -> Status {
    let status = serde_json::from_str(text).unwrap_or_else(|_| Status::failure(text.trim(), ""));
    status.with_code(code.as_u16())
}

/// Reads the document of a node. If `node` is empty, the document may be of any node.
pub(super) fn parse(text: &str, node: &str) -> Result<AgentStatus, String> {
    let status: AgentStatus = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match status.node.as_str() {
        "" => Err("the answer names no node".to_owned()),
        named if node.is_empty() || named == node => Ok(status),
        named => Err(format!("the answer is of node {}", escaped(named))),
    }
}

fn unreadable(pod: &AgentPod, why: &str) -> FetchError {
    FetchError::Unreadable(pod.full_name(), pod.node.clone(), escaped(why))
}

/// Why the API server or the agent refused a request. Only the API server's own errors have a reason, for example `NotFound`. So a 404
/// without a reason comes from the agent.
fn refused(pod: &AgentPod, status: &Status) -> FetchError {
    let full_name = pod.full_name();
    let message: String = status.message.chars().take(MAX_MESSAGE).collect();
    let message = escaped(&message);
    match status.code {
        403 => FetchError::Forbidden(full_name, message),
        404 if status.reason == "NotFound" => FetchError::Gone(full_name),
        404 => FetchError::Older(full_name),
        _ if !pod.ready => FetchError::NotReady(full_name, pod.namespace.clone(), pod.name.clone(), message),
        _ => FetchError::Unreachable(full_name, message),
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

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_refused_with_any_code() {
        for code in [StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR] {
            let answer = move || std::future::ready((code, vec![b' '; MAX_ANSWER + 1]));
            let client = Client::new(axum::Router::new().fallback(answer), "default");
            let pod = AgentPod { port: Some(1), ..pod(true) };
            let error = fetch(&client, &pod).await.expect_err("the answer is too long").to_string();
            assert!(error.contains("has more than 16777216 bytes"), "{error}");
        }
    }

    #[test]
    fn a_document_of_another_node_or_program_is_refused() {
        assert_eq!(parse(r#"{"node": "n1"}"#, "n1").map(|status| status.node), Ok("n1".to_owned()));
        assert!(parse(r#"{"node": "n2"}"#, "n1").is_err());
        assert!(parse("{}", "").is_err() && parse("<html>", "n1").is_err());
    }
}
