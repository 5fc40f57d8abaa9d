//! `nodes confirm-deletion`: confirms that the machines of deleted Nodes are off, so that the operator may release their addresses.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use bobbin_api_client::Lenient;
use bobbin_crds::deleted_nodes::{CONFIG_MAP, CONFIRMATION, DELETED_AT, STATE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Answer;
use crate::api::leader::Leader;
use crate::api::{leader, objects};
use crate::args::ConfirmArgs;
use crate::print::age::age;
use crate::print::output::{Output, Report, table};

/// Shows the deleted nodes, asks the user to confirm, and saves the confirmation. Returns no if the user declines. Also returns no, without
/// a question, if the operator has not written the list of deleted nodes yet.
pub(crate) async fn run(client: &Client, namespace: &str, args: &ConfirmArgs, output: Output) -> Result<Answer> {
    let maps: Api<Lenient<ConfigMap>> = Api::namespaced(client.clone(), namespace);
    // The operator creates the ConfigMap when the first Node with addresses is deleted.
    let Some(map) = objects::get(&maps, CONFIG_MAP).await? else {
        return unwritten(client, namespace, output).await;
    };
    let deleted = DeletedNodes::of(&map);
    output.print(&deleted)?;
    let Some(until) = deleted.covered().map(|node| node.deleted_at).max().flatten() else {
        anstream::eprintln!(
            "no deleted node in namespace {namespace} is held, so there is nothing to confirm. {}",
            later(client, namespace).await
        );
        return Ok(Answer::Yes);
    };
    if !args.yes && !ask(&deleted)? {
        return Ok(Answer::No);
    }
    // The write fails if the ConfigMap has changed since the command showed it. So the user confirms only what the user saw.
    let version = map.metadata.resource_version;
    let patch = json!({"metadata": {"resourceVersion": version, "annotations": {CONFIRMATION: until.to_string()}}});
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let written = objects::written(maps.patch(CONFIG_MAP, &params, &patch)).await;
    written.with_context(|| format!("can't annotate ConfigMap {namespace}/{CONFIG_MAP}"))?;
    anstream::eprintln!(
        "confirmed: the operator releases the addresses of the nodes that were deleted at {until} or earlier. In each grace period (operator.nodeGracePeriod), the operator releases the addresses of one tenth of these nodes, but of at least one node"
    );
    Ok(Answer::Yes)
}

/// Says that there is no list of deleted nodes. The answer is no, because the command can't know whether a deletion needs a
/// confirmation.
async fn unwritten(client: &Client, namespace: &str, output: Output) -> Result<Answer> {
    let namespaces: Api<Lenient<Namespace>> = Api::all(client.clone());
    if matches!(objects::get(&namespaces, namespace).await, Ok(None)) {
        bail!("Namespace {namespace} does not exist; name the namespace of Bobbin's operator with --bobbin-namespace");
    }
    output.print(&Unwritten { nodes: [] })?;
    anstream::eprintln!(
        "nothing is confirmed, because the operator has not written ConfigMap {namespace}/{CONFIG_MAP} yet. {}",
        later(client, namespace).await
    );
    Ok(Answer::No)
}

/// What to do if a deleted Node is missing in the list.
async fn later(client: &Client, namespace: &str) -> String {
    match Leader::read(client, namespace).await.absence(namespace, Timestamp::now()) {
        Some(absence) => format!("The operator writes the list, but {absence}; {}", leader::remedy(namespace)),
        None => "If you have just deleted Nodes, run the command again in a minute".to_owned(),
    }
}

/// The result of the command while the operator has not written the list of deleted nodes.
#[derive(Serialize)]
struct Unwritten {
    nodes: [DeletedNode; 0],
}

impl Report for Unwritten {
    fn text(&self, _: bool) -> String {
        "The operator has written no deleted node with addresses.".to_owned()
    }
}

/// The state of a held node. The operator releases the addresses of the node only after a confirmation or after the hold time.
pub(crate) const HELD: &str = "Held";

/// The nodes in the operator's ConfigMap of deleted nodes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DeletedNodes {
    pub(crate) nodes: Vec<DeletedNode>,
}

/// A deleted node, as the operator's ConfigMap describes it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeletedNode {
    pub(crate) node: String,
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<Timestamp>,
}

impl DeletedNodes {
    /// The nodes that a confirmation covers. It does not cover a node without a time of deletion.
    fn covered(&self) -> impl Iterator<Item = &DeletedNode> {
        self.nodes.iter().filter(|node| node.deleted_at.is_some() && matches!(node.state.as_str(), HELD | "Waiting"))
    }

    /// The names of the nodes whose addresses the operator holds until a confirmation or until the end of the hold time.
    pub(crate) fn held(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.state == HELD).map(|node| node.node.as_str())
    }

    /// The nodes in the operator's ConfigMap.
    pub(crate) fn of(map: &ConfigMap) -> Self {
        let entry = |(node, text): (&String, &String)| {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            // The operator holds a node whose entry it can't decode.
            let state = value[STATE].as_str().unwrap_or(HELD).to_owned();
            DeletedNode {
                node: node.clone(),
                state,
                deleted_at: value[DELETED_AT].as_str().and_then(|time| time.parse().ok()),
            }
        };
        Self { nodes: map.data.iter().flatten().map(entry).collect() }
    }
}

impl Report for DeletedNodes {
    fn text(&self, _: bool) -> String {
        if self.nodes.is_empty() {
            return "There is no deleted node with addresses.".to_owned();
        }
        let now = Timestamp::now();
        let mut rows = table(["node", "state", "deleted"]);
        for node in &self.nodes {
            let deleted = node.deleted_at.map_or_else(|| "-".to_owned(), |time| format!("{} ago", age(time, now)));
            rows.add_row([&node.node, &node.state, &deleted]);
        }
        rows.trim_fmt()
    }
}

/// Asks the user whether the machines are off.
fn ask(deleted: &DeletedNodes) -> Result<bool> {
    let mut input = std::io::stdin();
    if !input.is_terminal() {
        anstream::eprintln!(
            "nothing is confirmed, because the input is not a terminal and the command can't ask; add --yes if the machines of these nodes are off"
        );
        return Ok(false);
    }
    let names: Vec<&str> = deleted.covered().map(|node| node.node.as_str()).collect();
    anstream::eprint!(
        "If one of these machines still runs, its pods and new pods would share addresses. Are these machines off: {}? [y/N] ",
        names.join(", ")
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::BufReader::new(&mut input).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_cannot_be_decoded_counts_as_held() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {
            "n1": "{\"deletedAt\":\"2026-01-01T00:00:00Z\",\"state\":\"Waiting\"}", "n2": "?"
        }}))
        .expect("a ConfigMap");
        let states: Vec<_> =
            DeletedNodes::of(&map).nodes.into_iter().map(|node| (node.state, node.deleted_at.is_some())).collect();
        assert_eq!(DeletedNodes::of(&map).covered().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["n1"]);
        assert_eq!(states, [("Waiting".to_owned(), true), ("Held".to_owned(), false)]);
    }
}
