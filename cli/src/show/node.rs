//! `node`: what the agent of a node knows, from the agent's status document.

mod summary;
mod text;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bobbin_agent_status::AgentStatus;
use bobbin_api_client::{Lenient, PartialNode};
use kube::{Api, Client};
use serde::Serialize;

use crate::Answer;
use crate::api::{agent, objects};
use crate::print::output::Output;

/// How often `--watch` asks the agent. The agent's state is no API object, so it can't be watched.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Where the document comes from.
pub(crate) enum Source<'a> {
    /// From the node's agent, through the API server's pod proxy.
    Proxy { client: &'a Client, namespace: &'a str, node: &'a str },
    /// From the agent on this machine.
    Socket(&'a Path),
}

/// The view of one node.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    /// The agent's pod; absent if the command asked the agent on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(flatten)]
    status: AgentStatus,
}

/// Prints the view of a node. With `watch`, prints it again after each change.
pub(crate) async fn run(source: &Source<'_>, watch: bool, output: Output) -> Result<Answer> {
    let first = read(source).await?;
    output.print(&first)?;
    if watch {
        print_changes(source, first, output).await?;
    }
    Ok(Answer::Yes)
}

/// Prints the view after each change until the command is interrupted. A failed read does not end the command.
async fn print_changes(source: &Source<'_>, mut shown: NodeView, output: Output) -> Result<()> {
    let mut failing = false;
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        match read(source).await {
            Ok(view) => {
                failing = false;
                if lasting(&view) != lasting(&shown) {
                    output.print(&view)?;
                    shown = view;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    anstream::eprintln!("warning: {error:#}; the command keeps trying");
                }
            }
        }
    }
}

async fn read(source: &Source<'_>) -> Result<NodeView> {
    match source {
        Source::Socket(socket) => Ok(NodeView { pod: None, status: agent::read_socket(socket).await? }),
        Source::Proxy { client, namespace, node } => {
            let pod = match agent::pod_on(client, namespace, node).await {
                Ok(pod) => pod,
                Err(error) => return Err(if exists(client, node).await { error } else { does_not_exist(node) }),
            };
            let status = agent::fetch(client, &pod).await?;
            Ok(NodeView { pod: Some(pod.full_name()), status })
        }
    }
}

/// Whether the Node exists, or can't be read.
pub(super) async fn exists(client: &Client, node: &str) -> bool {
    let nodes: Api<Lenient<PartialNode>> = Api::all(client.clone());
    !matches!(objects::get(&nodes, node).await, Ok(None))
}

fn does_not_exist(node: &str) -> anyhow::Error {
    anyhow!("Node {node} does not exist, and has no agent; list all nodes with: kubectl bobbin nodes")
}

/// The view without the times that change although nothing happens.
fn lasting(view: &NodeView) -> AgentStatus {
    let mut status = view.status.clone();
    status.time = None;
    status.api.last_contact = None;
    status.api.watches.iter_mut().for_each(|watch| watch.last_active = None);
    (status.resync.succeeded, status.resync.next) = (None, None);
    // The agent computes `since` from the boot clock and the wall clock. These clocks drift apart, so `since` changes a
    // little at each read.
    status.blocks.iter_mut().for_each(|block| block.since = None);
    status
}
