//! Measures ADD on one node before and after a thief writes forged assignments with the token of another node's agent.
//!
//! The API server enforces the chart's policies, and the operator denies the thief's node. The benchmark measures the
//! cost that remains for other nodes, where ADDs must skip the forged addresses.

use anyhow::{Context, Result, ensure};
use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use ipnet::{Ipv4AddrRange, Ipv4Net};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::rounds::each;
use super::samples::Samples;
use super::stages::Verb;
use super::{BenchConfig, IPV4_POOL, KubePod, Report};
use crate::single_node::{CHART_NAMESPACE, NODE, SingleNode, SingleNodeOptions, WAIT_TIMEOUT};
use crate::wait::{check, wait_until};

/// The name of the row for the pool with forgeries. The column `Bobbin` holds the ADD times after the forgeries, and the
/// next column holds the ADD times before them.
pub const ROW: &str = "ADD, after/before a stolen token";
/// The name of the row for the pool without forgeries. The column `Bobbin` holds the ADD times of the second half of
/// the batches, and the next column holds those of the first half.
pub const CONTROL_ROW: &str = "ADD, later/earlier, no stolen token";
/// The number of forged assignments in a round. This number is more than enough for the operator to deny a node.
const FORGERIES: usize = 40;
/// The number of batches before the forgeries. The same number of batches follows the forgeries. A batch calls ADD for
/// all pods and then DEL.
const BATCHES: usize = 5;
/// The ConfigMap of denied nodes.
const DENIED: &str = bobbin_crds::denied_nodes::CONFIG_MAP;

/// Measures all rounds on a separate API server, because the chart's policies would change the results of the other
/// benchmarks.
///
/// The time of an ADD also varies without forgeries, for example because etcd waits for its disk. So each round
/// measures the same batches in a second pool, in which the thief forges nothing. The threshold compares the changes in
/// the two pools.
pub async fn measure(config: BenchConfig, report: &mut Report) -> Result<()> {
    let mut node = SingleNode::ready(SingleNodeOptions { fsync: true, ..SingleNodeOptions::default() }).await?;
    node.use_service_accounts().await?;
    let [mut before, mut after, mut earlier, mut later] = [(); 4].map(|()| Samples::default());
    for round in 0..config.rounds {
        eprintln!("bench: measuring ADDs before and after forgeries, round {} of {}", round + 1, config.rounds);
        // Each round uses new pools and a new thief, so that forgeries of earlier rounds have no effect.
        let pool = format!("{IPV4_POOL}-{round}");
        for (name, subnet) in [(format!("{pool}-control"), 2 * round + 1), (pool, 2 * round)] {
            let spec = json!({"subnets": [{"ipv4": format!("10.66.{subnet}.0/24")}], "cooldownSeconds": 0});
            node.apply_pool(&name, spec).await?;
            node.await_free_blocks(&name).await?;
            let mut pods = Vec::new();
            for number in 0..config.one_by_one {
                pods.push(KubePod::create(&node, &format!("{name}-{number}"), Some(&name)).await?);
            }
            let is_control = name.ends_with("control");
            let (first, second) = if is_control { (&mut earlier, &mut later) } else { (&mut before, &mut after) };
            for _ in 0..BATCHES {
                adds(&node, &pods, first, report).await?;
            }
            if !is_control {
                forge(&node, &format!("thief-{round}"), &name).await?;
            }
            // The first ADDs after the forgeries encounter forged addresses. The agent then lists the assignments of
            // the attacked blocks. Until it has this list, each ADD waits for the confirmation of its assignment.
            for _ in 0..BATCHES {
                adds(&node, &pods, second, report).await?;
            }
        }
    }
    report.add(ROW, after, Some(before));
    report.add(CONTROL_ROW, later, Some(earlier));
    Ok(())
}

/// Calls ADD for one pod after another, and then calls DEL for all pods.
async fn adds(node: &SingleNode, pods: &[KubePod], samples: &mut Samples, report: &mut Report) -> Result<()> {
    let sandboxes = pods.iter().map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
    let (sandboxes, times) = each(&node.plugin(), Verb::Add, sandboxes, &mut report.errors)?;
    for took in times {
        samples.add(took);
    }
    each(&node.plugin(), Verb::Del, sandboxes, &mut report.errors)?;
    wait_until("no assignment of this node is left", WAIT_TIMEOUT, || async {
        let left = node.assignments().await?.iter().filter(|one| one.spec.node_name == NODE).count();
        Ok(check(left == 0, || format!("{left} assignments are left")))
    })
    .await
}

/// Writes forged assignments for addresses in this node's blocks, with the token of the node `thief`. Then waits until
/// the operator denies the thief's node.
async fn forge(node: &SingleNode, thief: &str, pool: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": thief}}))?).await?;
    let assignments: Api<IPAssignment> = Api::all(node.agent_client(thief).await?);
    let blocks = node.own_blocks(pool).await?;
    let mut forged = 0;
    for block in &blocks {
        let range: Ipv4Net = block.spec.ipv4.as_deref().context("the block has no IPv4 range")?.parse()?;
        let block_name = block.metadata.name.as_deref().context("the block has no name")?;
        for address in Ipv4AddrRange::new(range.network(), range.broadcast()).take(FORGERIES - forged) {
            let spec = IPAssignmentSpec {
                pool_name: pool.to_owned(),
                block_name: block_name.to_owned(),
                node_name: thief.to_owned(),
                ipv4: Some(address.to_string()),
                ipv6: None,
                container_id: "c0ffee".to_owned(),
                if_name: "eth0".to_owned(),
                pod_namespace: Some("default".to_owned()),
                pod_name: Some("invented".to_owned()),
                pod_uid: Some("0f1e2d3c-0000-4000-8000-000000000007".to_owned()),
                created_at: MicroTime(Timestamp::now()),
                boot_id: "boot".to_owned(),
            };
            let object = IPAssignment::new(&address.to_string(), spec);
            assignments
                .create(&PostParams::default(), &object)
                .await
                .context("the API server refused a forged assignment")?;
            forged += 1;
        }
    }
    ensure!(
        forged == FORGERIES,
        "the node's blocks of pool {pool} have only {forged} addresses, too few for the forgeries"
    );
    let maps: Api<ConfigMap> = Api::namespaced(node.client.clone(), CHART_NAMESPACE);
    wait_until("the operator has denied the thief's node", WAIT_TIMEOUT, || async {
        let entries = maps.get_opt(DENIED).await?.and_then(|map| map.data).unwrap_or_default();
        Ok(check(entries.contains_key(thief), || format!("{entries:?}")))
    })
    .await
}
