//! `nodes`: the blocks and free addresses of each node, per pool.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use bobbin_ipam::{BlockRange, Reserved};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::objects;
use crate::api::reserved::reserved;
use crate::api::watch::Changes;
use crate::args::ListArgs;
use crate::print::output::{Output, Report, table, verdict};

/// Prints the nodes. With `--watch`, prints them again after each change.
pub(crate) async fn run(client: &Client, args: &ListArgs, output: Output) -> Result<Answer> {
    let mut changes = args.watch.then(|| Changes::new(client));
    loop {
        let nodes: Vec<PartialNode> = objects::list(&Api::<Lenient<PartialNode>>::all(client.clone()), "").await?;
        let known: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
        let pools = objects::list(&Api::<Lenient<AddressPool>>::all(client.clone()), "").await?;
        // The blocks are listed after the assignments, because a node claims a block before it assigns addresses. So
        // the list of blocks shows the owner of each assignment's block.
        let assignments = objects::list(&Api::<Lenient<IPAssignment>>::all(client.clone()), "").await?;
        let blocks = objects::list(&Api::<Lenient<AddressBlock>>::all(client.clone()), "").await?;
        let mut rows = rows(&known, &pools, &blocks, &assignments);
        for name in &args.names {
            let exists = known.contains(name) || rows.iter().any(|row| row.node == *name);
            ensure!(exists, "Node {name} does not exist and owns no block; list all nodes with: kubectl bobbin nodes");
        }
        rows.retain(|row| args.names.is_empty() || args.names.contains(&row.node));
        output.print(&Nodes { nodes: rows })?;
        match &mut changes {
            Some(changes) => changes.next().await,
            None => return Ok(Answer::Yes),
        }
    }
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<NodeRow>,
}

/// The blocks of one pool that one node owns.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    pub(crate) node: String,
    /// Whether the Node object exists. The operator releases the blocks of a deleted node after the grace period.
    pub(crate) exists: bool,
    /// Absent if the node owns no block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<String>,
    pub(crate) blocks: Vec<String>,
    /// How many addresses of the blocks pods use.
    pub(crate) used: u64,
    /// How many addresses of the blocks are neither used nor reserved. Some of them may still cool down.
    pub(crate) unused: u64,
}

/// The blocks of each node, by pool. `nodes` are the names of the Nodes that exist.
pub(crate) fn rows(
    nodes: &BTreeSet<String>,
    pools: &[AddressPool],
    blocks: &[AddressBlock],
    assignments: &[IPAssignment],
) -> Vec<NodeRow> {
    let reserved: BTreeMap<String, Reserved> = pools.iter().map(|pool| (pool.name_any(), reserved(pool))).collect();
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for assignment in assignments {
        *used.entry(&assignment.spec.block_name).or_default() += 1;
    }
    let mut rows: BTreeMap<(String, Option<String>), NodeRow> = BTreeMap::new();
    let mut without: BTreeSet<&String> = nodes.iter().collect();
    for block in blocks {
        let Some(node) = &block.spec.node_name else { continue };
        without.remove(node);
        let pool = Some(block.spec.pool_name.clone());
        let row = rows.entry((node.clone(), pool.clone())).or_insert_with(|| NodeRow {
            node: node.clone(),
            exists: nodes.contains(node),
            pool,
            ..NodeRow::default()
        });
        let name = block.name_any();
        let in_use = used.get(name.as_str()).copied().unwrap_or_default();
        let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok();
        let of_pool = reserved.get(&block.spec.pool_name).cloned().unwrap_or_default();
        let assignable = range.map_or(0, |range| u128::from(range.len()) - of_pool.count_in(&range.as_subnet()));
        row.unused += u64::try_from(assignable).unwrap_or(u64::MAX).saturating_sub(in_use);
        row.used += in_use;
        row.blocks.push(name);
    }
    for node in without {
        let row = NodeRow { node: node.clone(), exists: true, ..NodeRow::default() };
        rows.insert((node.clone(), None), row);
    }
    rows.into_values().collect()
}

impl Report for Nodes {
    fn text(&self, wide: bool) -> String {
        let mut header = vec!["node", "exists", "pool", "blocks", "used", "unused"];
        if wide {
            header.push("names of blocks");
        }
        let mut rows = table(header);
        for row in &self.nodes {
            let mut cells = vec![
                row.node.clone().into(),
                verdict(if row.exists { "yes" } else { "no" }, row.exists),
                row.pool.clone().unwrap_or_else(|| "-".to_owned()).into(),
                row.blocks.len().into(),
                row.used.into(),
                row.unused.into(),
            ];
            if wide {
                cells.push(row.blocks.join(", ").into());
            }
            rows.add_row(cells);
        }
        rows.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_counts_the_addresses_of_a_nodes_blocks_in_a_pool() {
        let pool = json!({
            "metadata": {"name": "p"},
            "spec": {"subnets": [{"ipv4": "10.0.0.0/24"}], "reserved": ["10.0.0.1"], "blockSizeBits": 2},
            "status": {"nodeAddresses": ["10.0.0.2"]}
        });
        let block = |index: u64, node: Option<&str>| {
            json!({"metadata": {"name": format!("p-{index}")},
                   "spec": {"poolName": "p", "index": index, "ipv4": format!("10.0.0.{}/30", 4 * index), "nodeName": node}})
        };
        let assignment = json!({"metadata": {"name": "10.0.0.3"}, "spec": {
            "poolName": "p", "blockName": "p-0", "nodeName": "n1", "ipv4": "10.0.0.3", "containerID": "c", "ifName": "eth0",
            "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "b"}});
        let of = |value| serde_json::from_value(value).expect("an object");
        let blocks = [block(0, Some("n1")), block(1, Some("n1")), block(2, Some("gone")), block(3, None)];
        let blocks: Vec<AddressBlock> =
            blocks.into_iter().map(|value| serde_json::from_value(value).expect("a block")).collect();
        let nodes = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
        let found = rows(&nodes, &[of(pool)], &blocks, &[serde_json::from_value(assignment).expect("an assignment")]);
        let short: Vec<_> =
            found.iter().map(|row| (row.node.as_str(), row.exists, row.blocks.len(), row.used, row.unused)).collect();
        assert_eq!(short, [("gone", false, 1, 0, 4), ("n1", true, 2, 1, 5), ("n2", true, 0, 0, 0)]);
    }
}
