//! Direct routing: the node's addresses in its blocks, and routes to other nodes' blocks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, NODE, NODE_IPV4, NODE_IPV6, PATIENCE};
use bobbin_e2e::until::{so, until};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::scene::{Block, Scene, forget_other};
use super::{patience, with_flags};

const DIRECT: &str = "--routing=direct";
const METRICS: &str = "127.0.0.1:9119";

/// Changes the first address of the Node object.
pub async fn set_node_address(node: &LoneNode, ipv4: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let addresses = json!([{"type": "InternalIP", "address": ipv4}, {"type": "InternalIP", "address": NODE_IPV6}]);
    let status = json!({"status": {"addresses": addresses}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until a block carries this address.
pub async fn carries(node: &LoneNode, block: &Block, ipv4: &str, within: Duration) -> Result<()> {
    until(&format!("block {} carries the node's address {ipv4}", block.name), within, || async {
        let seen = block.get(node).await?.and_then(|block| block.spec.node_ipv4);
        Ok(so(seen.as_deref() == Some(ipv4), || format!("it carries {seen:?}")))
    })
    .await
}

pub async fn changed_address(node: &mut LoneNode) -> Result<()> {
    with_flags(node, &[DIRECT]).await?;
    let mut scene = Scene::begin(node, "moved", 51, 28, 2, json!({})).await?;
    scene.add(node).await?;
    let block = scene.block(node, 0).await?;
    set_node_address(node, "10.100.0.55").await?;
    carries(node, &block, "10.100.0.55", patience(Duration::from_mins(1))).await?;
    set_node_address(node, NODE_IPV4).await?;
    carries(node, &block, NODE_IPV4, patience(Duration::from_mins(1))).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn edited_address(node: &mut LoneNode) -> Result<()> {
    with_flags(node, &[DIRECT]).await?;
    let mut scene = Scene::begin(node, "edited", 52, 28, 2, json!({})).await?;
    scene.add(node).await?;
    let block = scene.block(node, 0).await?;
    block.patch(node, json!({"nodeIPv4": "10.100.0.66"})).await?;
    // Also an agent that was away finds it.
    with_flags(node, &[DIRECT]).await?;
    carries(node, &block, NODE_IPV4, patience(Duration::from_mins(1))).await?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

/// The number of a counter on the agent's page.
fn counter(node: &LoneNode, name: &str) -> Result<u64> {
    let page = node.namespace.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })??;
    let line = page.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name} in {page}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

pub async fn claims_are_no_repairs(node: &mut LoneNode) -> Result<()> {
    with_flags(node, &[DIRECT, &format!("--metrics-address={METRICS}")]).await?;
    let scene = Scene::begin(node, "theirs", 53, 28, 2, json!({})).await?;
    let block = Block::with(node, "10.90.53.0".parse()?).await?;
    let is_routed = || -> Result<bool> { Ok(node.table(254)?.iter().any(|(dst, _)| *dst == block.range.to_string())) };
    let before = counter(node, "bobbin_repairs_total")?;
    for _ in 0..3 {
        block.hand_over(node).await?;
        until("there is a route to the other node's block", PATIENCE, || async {
            Ok(so(is_routed()?, || "none".to_owned()))
        })
        .await?;
        forget_other(node).await?;
        until("the route is gone", PATIENCE, || async { Ok(so(!is_routed()?, || "there".to_owned())) }).await?;
    }
    let after = counter(node, "bobbin_repairs_total")?;
    ensure!(after == before, "three claims of another node were counted as {} repairs", after - before);
    with_flags(node, &[]).await?;
    scene.end(node).await
}
