//! Fetches the status document on the node itself, from the agent's socket for probes. Works without the API server.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_agent_status::{AgentStatus, PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::fetch::parse;
use crate::print::failure::advised;
use crate::print::output::escaped;

/// The deadline of one call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of an answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Fetches the document from a socket.
pub(crate) async fn read_socket(socket: &Path) -> Result<AgentStatus> {
    let shown = socket.display();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(socket))
        .await
        .map_err(|_| {
            anyhow!("the agent at {shown} did not answer within {} s; see the agent's log", ANSWER_TIMEOUT.as_secs())
        })?
        .map_err(|error| {
            let what = format!("no agent answers at {shown}");
            advised(what, &error, "run the command as root on the node, or name the socket")
        })?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("the answer at {shown} is no HTTP"))?;
    let code = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(code != "404", "the agent at {shown} has no status document, because the agent is older than this command");
    let code = escaped(code);
    ensure!(code == "200", "the agent at {shown} answered with the HTTP status {code}; see the agent's log");
    parse(body, "").map_err(|why| anyhow!("the answer at {shown} is not a status document: {}", escaped(&why)))
}

async fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!("GET {PATH} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}
