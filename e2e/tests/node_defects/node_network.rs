//! Tests pools whose addresses overlap networks of the node itself. The node claims no block that overlaps its
//! networks, and no pod gets the address of a Node.

use anyhow::{Result, ensure};
use bobbin_crds::{AddressBlock, AddressBlockSpec, AddressPool, name};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::metrics_endpoint::get;
use super::{addresses, end};

/// The number of blocks that the test creates at the same time.
const CONCURRENT_CREATES: usize = 16;

/// Checks that an ADD from a pool fails with these words, and that the node claims no block of the pool. Waits for the
/// event with the same words.
async fn is_refused(node: &SingleNode, pool: &str, words: &str) -> Result<()> {
    let pod = node.kube_pod("default", &format!("refused-{pool}"), Some(pool)).await?;
    let error = node.call(&pod.call("ADD"))?.error()?;
    ensure!(error.text.contains(words), "the error does not contain {words:?}: {error:?}");
    let blocks = node.own_blocks(pool).await?;
    ensure!(blocks.is_empty(), "the node must claim no block of the pool, but claimed {blocks:?}");
    wait_until("an event about the pool names the node's network", WAIT_TIMEOUT, || async {
        let notes = node.warnings("NodeNetwork").await?;
        let said = notes.iter().any(|note| note.contains(&format!("pool {pool:?}")) && note.contains(words));
        Ok(check(said, || format!("{notes:?}")))
    })
    .await?;
    end(node, vec![pod], &[&format!("refused-{pool}")]).await
}

async fn await_metric(node: &SingleNode, line: &str) -> Result<()> {
    wait_until(&format!("the agent's metrics have {line}"), WAIT_TIMEOUT, || async {
        // Request /healthz first, because the agent updates its gauges when it answers a probe.
        get(node, "/healthz")?;
        let (_, text) = get(node, "/metrics")?;
        let key = line.rsplit_once(' ').map_or(line, |(key, _)| key);
        let found: Vec<&str> = text.lines().filter(|other| other.starts_with(key)).collect();
        Ok(check(found.contains(&line), || format!("{found:?}")))
    })
    .await
}

async fn remove_pools(node: &SingleNode, names: &[&str]) -> Result<()> {
    let pools: Api<AddressPool> = Api::all(node.client.clone());
    for name in names {
        pools.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// The agent lists free blocks in pages of 500. The only block that it may claim is on the second page.
pub async fn block_on_second_page(node: &mut SingleNode) -> Result<()> {
    node.namespace
        .ip("link add covering type veth peer name covering-peer\nlink set covering-peer up\nlink set covering up\n")?;
    node.namespace.ip("route add 10.109.0.0/17 dev covering")?;
    node.apply_pool("pages", json!({"subnets": [{"ipv4": "10.109.0.0/16"}], "blockSizeBits": 4})).await?;
    node.stop_operator();
    let usable = 4000;
    let created = stream::iter((1000..1600).chain([usable]).map(|index| create_free_block(node, "pages", index)));
    created.buffer_unordered(CONCURRENT_CREATES).try_collect::<()>().await?;
    let pod = node.kube_pod("default", "second-page", Some("pages")).await?;
    let given = addresses(&node.add(&pod)?);
    node.start_operator()?;
    ensure!(given[0].starts_with("10.109.250."), "the pod must get an address of block {usable}, but got {given:?}");
    end(node, vec![pod], &["second-page"]).await?;
    node.namespace.ip("link del covering")?;
    remove_pools(node, &["pages"]).await
}

/// Creates a free block of 16 addresses in the subnet 10.109.0.0/16, as the operator does.
async fn create_free_block(node: &SingleNode, pool: &str, index: u16) -> Result<()> {
    let [third, fourth] = (index * 16).to_be_bytes();
    let spec = AddressBlockSpec {
        pool_name: pool.to_owned(),
        index: index.into(),
        ipv4: Some(format!("10.109.{third}.{fourth}/28")),
        ..AddressBlockSpec::default()
    };
    let blocks: Api<AddressBlock> = Api::all(node.client.clone());
    blocks.create(&PostParams::default(), &AddressBlock::new(&name::block(pool, index), spec)).await?;
    Ok(())
}

pub async fn refused_blocks(node: &mut SingleNode) -> Result<()> {
    // The node's uplink has the address 10.100.0.1/24. The pool contains no address of a Node, so the operator accepts
    // the pool.
    node.apply_pool("uplink", json!({"subnets": [{"ipv4": "10.100.0.128/25"}]})).await?;
    is_refused(node, "uplink", "the connected subnet 10.100.0.0/24 of the node").await?;
    // Follow the remedy in the error: reserve the addresses of the refused blocks. Also append a subnet, because the
    // pool has no other blocks.
    let subnets = json!([{"ipv4": "10.100.0.128/25"}, {"ipv4": "10.108.0.0/26"}]);
    node.apply_pool("uplink", json!({"subnets": subnets, "reserved": ["10.100.0.128/25"]})).await?;
    let pod = node.kube_pod("default", "remedied", Some("uplink")).await?;
    let given = addresses(&node.add(&pod)?);
    ensure!(given[0].starts_with("10.108.0."), "{given:?}");
    end(node, vec![pod], &["remedied"]).await?;
    // The operator refuses this pool, because it overlaps another pool. The pool gets no blocks, so no event may say
    // that its blocks overlap the node's network.
    node.apply_pool_only("refused", json!({"subnets": [{"ipv4": "10.100.0.192/26"}]})).await?;
    node.namespace.ip("link add extra type veth peer name extra-peer\nlink set extra-peer up\n")?;
    node.namespace.ip("addr add 10.103.0.1/24 dev extra\nlink set extra up\n")?;
    node.namespace.ip("route add 198.51.100.0/24 via 10.104.0.9 dev extra onlink")?;
    node.apply_pool("extra", json!({"subnets": [{"ipv4": "10.103.0.0/26"}]})).await?;
    is_refused(node, "extra", "the node's address 10.103.0.1").await?;
    // One of the pool's two blocks contains the next hop of a route. The node must claim the other block.
    node.apply_pool("hop", json!({"subnets": [{"ipv4": "10.104.0.0/26"}]})).await?;
    let pod = node.kube_pod("default", "beside", Some("hop")).await?;
    let given = addresses(&node.add(&pod)?);
    let last: u8 = given[0].rsplit('.').next().unwrap_or_default().parse()?;
    ensure!(last >= 32, "the pod got {given:?}, but this block contains the next hop 10.104.0.9");
    end(node, vec![pod], &["beside"]).await?;
    // A subnet that the node reaches over two gateways is no connected subnet, so the node may claim its blocks.
    node.namespace.ip(
        "route add 10.106.0.0/24 nexthop via 10.104.0.9 dev extra onlink nexthop via 10.104.0.10 dev extra onlink",
    )?;
    node.apply_pool("beyond", json!({"subnets": [{"ipv4": "10.106.0.0/26"}]})).await?;
    let pod = node.kube_pod("default", "beyond", Some("beyond")).await?;
    node.add(&pod)?;
    end(node, vec![pod], &["beyond"]).await?;
    // Routes that drop packets and routes over the loopback link create no connected subnet, so the node may claim
    // these blocks.
    node.namespace.ip(
        "route add unreachable fd00:107::/48 dev lo\nroute add prohibit fd00:107::/112\nroute add 10.107.0.0/24 dev lo",
    )?;
    node.apply_pool("guarded", json!({"subnets": [{"ipv4": "10.107.0.0/26", "ipv6": "fd00:107::/122"}]})).await?;
    let pod = node.kube_pod("default", "guarded", Some("guarded")).await?;
    node.add(&pod)?;
    end(node, vec![pod], &["guarded"]).await?;
    await_metric(node, "bobbin_agent_refused_pools 3").await?;
    let notes = node.warnings("NodeNetwork").await?;
    ensure!(!notes.iter().any(|note| note.contains("pool \"refused\"")), "{notes:?}");
    node.namespace.ip("link del extra")?;
    let pod = node.kube_pod("default", "after", Some("extra")).await?;
    // Repeat the ADD like a runtime, because the agent pauses for up to 30 s after failed claims.
    wait_until("an ADD gets an address", CONVERGENCE_TIMEOUT, || async { Ok(Poll::Ready(node.add(&pod)?)) }).await?;
    end(node, vec![pod], &["after"]).await?;
    await_metric(node, "bobbin_agent_refused_pools 1").await?;
    node.namespace
        .ip("route del unreachable fd00:107::/48\nroute del prohibit fd00:107::/112\nroute del 10.107.0.0/24")?;
    remove_pools(node, &["uplink", "refused", "extra", "hop", "beyond", "guarded"]).await
}

pub async fn node_joins(node: &mut SingleNode) -> Result<()> {
    node.apply_pool(
        "joined",
        json!({"subnets": [{"ipv4": "10.105.0.0/30"}], "blockSizeBits": 2, "cooldownSeconds": 0}),
    )
    .await?;
    let mut pods: Vec<Sandbox> = Vec::new();
    let (mut names, mut given) = (Vec::new(), Vec::new());
    let first = node.kube_pod("default", "joined-0", Some("joined")).await?;
    given.extend(addresses(&node.add(&first)?));
    pods.push(first);
    names.push("joined-0".to_owned());
    let newcomer = ["10.105.0.1", "10.105.0.2"].into_iter().find(|address| given[0] != *address).unwrap_or_default();
    let nodes: Api<Node> = Api::all(node.client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "newcomer"}});
    nodes.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": newcomer}]}});
    nodes.patch_status("newcomer", &PatchParams::default(), &Patch::Merge(status)).await?;
    await_metric(node, "bobbin_agent_addresses{pool=\"joined\",family=\"ipv4\",state=\"free\"} 2").await?;
    for number in 1..3 {
        let pod = node.kube_pod("default", &format!("joined-{number}"), Some("joined")).await?;
        given.extend(addresses(&node.add(&pod)?));
        pods.push(pod);
        names.push(format!("joined-{number}"));
    }
    ensure!(given.iter().all(|address| address != newcomer), "a pod got the address {newcomer} of a Node: {given:?}");
    let last = node.kube_pod("default", "joined-3", Some("joined")).await?;
    let error = node.call(&last.call("ADD"))?.error()?;
    ensure!(error.text.contains("has no free address"), "{error:?}");
    // The operator keeps a deleted Node's address reserved for the grace period, so shorten this period.
    node.restart_operator(&["--node-grace-period=2s"])?;
    nodes.delete("newcomer", &DeleteParams::default()).await?;
    await_metric(node, "bobbin_agent_addresses{pool=\"joined\",family=\"ipv4\",state=\"free\"} 1").await?;
    given.extend(addresses(&node.add(&last)?));
    ensure!(
        given.iter().any(|address| address == newcomer),
        "no pod got {newcomer}, although its Node is deleted: {given:?}"
    );
    pods.push(last);
    names.push("joined-3".to_owned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    end(node, pods, &names).await?;
    remove_pools(node, &["joined"]).await?;
    node.restart_operator(&[])
}
