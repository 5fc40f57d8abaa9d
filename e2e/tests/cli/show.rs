//! Tests the commands that read objects and change nothing.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{NODE, NODE_IPV4, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

use crate::{expect, kubectl_bobbin};

/// The first address that an ADD returned.
fn address(result: &Value) -> Result<String> {
    let text = result["ips"][0]["address"].as_str().context("the result has no address")?;
    Ok(text.split('/').next().unwrap_or_default().to_owned())
}

pub async fn lists(node: &mut SingleNode) -> Result<()> {
    node.apply_pool(
        "lists",
        json!({"subnets": [{"ipv4": "10.91.1.0/27"}], "blockSizeBits": 2, "reserved": ["10.91.1.0"]}),
    )
    .await?;
    node.await_free_blocks("lists").await?;
    let pods = [
        node.kube_pod("default", "lists-0", Some("lists")).await?,
        node.kube_pod("default", "lists-1", Some("lists")).await?,
    ];
    for pod in &pods {
        node.add(pod)?;
    }
    node.await_assignments_of(&pods).await?;
    wait_until("the pool's status and the blocks agree with the assignments", WAIT_TIMEOUT, || async {
        let pools = kubectl_bobbin(node, &["pools", "lists", "-o", "json"])?.json()?;
        let pool = &pools["pools"][0];
        let nodes = kubectl_bobbin(node, &["nodes", NODE, "-o", "json"])?.json()?;
        let rows: Vec<&Value> =
            nodes["nodes"].as_array().into_iter().flatten().filter(|row| row["pool"] == "lists").collect();
        let blocks = node.own_blocks("lists").await?;
        let owned = blocks.len();
        // The reserved address is the first of the pool.
        let reserved = blocks.iter().filter(|block| block.spec.index == 0).count();
        let holds = pool["used"] == 2
            && pool["reserved"] == 1
            && pool["state"] == "Ready"
            && pool["blocks"]["claimed"] == owned
            && pool["fragmentationPercent"].as_u64() == Some(((4 * owned - 2) * 100 / (4 * owned)) as u64)
            && rows.len() == 1
            && rows[0]["used"] == 2
            && rows[0]["unused"] == 4 * owned - reserved - 2
            && rows[0]["blocks"].as_array().map(Vec::len) == Some(owned);
        Ok(check(holds, || format!("{owned} blocks, {pool}, {rows:?}")))
    })
    .await?;
    let wide = kubectl_bobbin(node, &["pools", "-o", "wide"])?;
    expect(&wide, 0, "10.91.1.0/27")?;
    ensure!(wide.out.starts_with("NAME") && !wide.out.contains('\u{1b}'), "colours without a terminal: {wide:?}");
    expect(&kubectl_bobbin(node, &["pools", "lists", "-o", "yaml"])?, 0, "name: lists")?;
    expect(&kubectl_bobbin(node, &["nodes"])?, 0, NODE)?;
    node.remove_pods(pods.into()).await
}

pub async fn who(node: &mut SingleNode) -> Result<()> {
    let subnets = json!([{"ipv4": "10.91.2.0/28", "ipv6": "fd00:91::/124"}]);
    node.apply_pool("who", json!({"subnets": subnets, "blockSizeBits": 2, "reserved": ["10.91.2.15"]})).await?;
    node.await_free_blocks("who").await?;
    let pod = node.kube_pod("default", "who", Some("who")).await?;
    let result = node.add(&pod)?;
    let pods = [pod];
    node.await_assignments_of(&pods).await?;
    let all = result["ips"].as_array().context("the result has no addresses")?;
    ensure!(all.len() == 2, "{all:?}");
    for ip in all {
        let text = ip["address"].as_str().and_then(|text| text.split('/').next()).context("no address")?;
        let found = kubectl_bobbin(node, &["who", text])?;
        expect(&found, 0, &format!("pod default/who on node {NODE} has had it since"))?;
        let found = kubectl_bobbin(node, &["who", text, "-o", "json"])?.json()?;
        ensure!(
            found["state"] == "assigned"
                && found["namespace"] == "default"
                && found["pod"] == "who"
                && found["node"] == NODE,
            "{found}"
        );
    }
    expect(&kubectl_bobbin(node, &["who", "10.91.2.15"])?, 0, "reserved")?;
    let block = node.own_blocks("who").await?.into_iter().next().context("the node owns no block")?;
    let taken = address(&result)?;
    let range: ipnet::Ipv4Net = block.spec.ipv4.context("no range")?.parse()?;
    let neighbour = range.hosts().find(|one| one.to_string() != taken).context("the block has one address")?;
    expect(&kubectl_bobbin(node, &["who", &neighbour.to_string()])?, 0, &format!("node {NODE} owns its block"))?;
    let unclaimed =
        node.blocks().await?.into_iter().find(|one| one.spec.pool_name == "who" && one.spec.node_name.is_none());
    let unclaimed = unclaimed.and_then(|one| one.spec.ipv6).context("no block is free")?;
    let first = unclaimed.split('/').next().unwrap_or_default();
    expect(&kubectl_bobbin(node, &["who", first])?, 0, "never assigned")?;
    let nowhere = kubectl_bobbin(node, &["who", "192.0.2.77"])?;
    expect(&nowhere, 3, "in no pool")?;
    expect(&kubectl_bobbin(node, &["who", NODE_IPV4])?, 3, &format!("an address of Node {NODE}"))?;
    node.remove_pods(pods.into()).await
}

pub async fn explain(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("explain", json!({"subnets": [{"ipv4": "10.91.3.0/28"}], "blockSizeBits": 2})).await?;
    node.await_free_blocks("explain").await?;
    let pods = [node.kube_pod("default", "explained", Some("explain")).await?];
    let taken = address(&node.add(&pods[0])?)?;
    node.await_assignments_of(&pods).await?;
    let found = kubectl_bobbin(node, &["explain", "explained"])?;
    expect(&found, 0, "explain, because the pod's annotation bobbin.dev/pool names it")?;
    expect(&found, 0, &taken)?;
    let by_default = node.kube_pod("default", "by-default", None).await?;
    expect(
        &kubectl_bobbin(node, &["explain", "by-default", "-n", "default"])?,
        3,
        "neither the pod nor its namespace names a pool",
    )?;
    // The pool does not exist, so the agent refuses the pod, and the explanation has the agent's own sentence.
    let refused = node.kube_pod("default", "refused", Some("absent")).await?;
    let error = node.call(&refused.call("ADD"))?.error()?;
    let found = kubectl_bobbin(node, &["explain", "refused"])?;
    let words = error.text.split_once("gets no address: ").map(|(_, words)| words).context("another error")?;
    expect(&found, 3, words)?;
    let json = kubectl_bobbin(node, &["explain", "refused", "-o", "json"])?.json()?;
    ensure!(
        json["needsAddress"] == true
            && json["addresses"] == json!([])
            && json["pool"]["name"] == "absent"
            && json["pool"]["refused"].is_string(),
        "{json}"
    );
    let missing = kubectl_bobbin(node, &["explain", "no-such-pod"])?;
    expect(&missing, 1, "Pod default/no-such-pod does not exist")?;
    expect(&missing, 1, "add -n NAMESPACE")?;
    expect(&kubectl_bobbin(node, &["explain", "default/explained"])?, 0, &taken)?;
    expect(
        &kubectl_bobbin(node, &["explain", "default/explained", "-n", "other"])?,
        2,
        "leave out one of the two namespaces",
    )?;
    node.del(&refused)?;
    node.delete_kube_pod("default", "refused").await?;
    node.del(&by_default)?;
    node.remove_pods(pods.into()).await
}

pub async fn map(node: &mut SingleNode) -> Result<()> {
    node.apply_pool(
        "map",
        json!({"subnets": [{"ipv4": "10.91.4.0/28"}], "blockSizeBits": 3, "reserved": ["10.91.4.7", "10.91.4.15"]}),
    )
    .await?;
    node.await_free_blocks("map").await?;
    let pods = [node.kube_pod("default", "mapped", Some("map")).await?];
    let taken = address(&node.add(&pods[0])?)?;
    node.await_assignments_of(&pods).await?;
    let offset = taken.rsplit('.').next().and_then(|text| text.parse::<usize>().ok()).context("no offset")? % 8;
    let picture: String = (0..8)
        .map(|one| {
            if one == offset {
                '█'
            } else if one == 7 {
                'x'
            } else {
                '·'
            }
        })
        .collect();
    let found = kubectl_bobbin(node, &["map", "map"])?;
    expect(&found, 0, &picture)?;
    expect(&found, 0, NODE)?;
    let json = kubectl_bobbin(node, &["map", "map", "-o", "json"])?.json()?;
    ensure!(
        json["claimed"][0]["assigned"] == json!([offset]) && json["claimed"][0]["reserved"] == json!([7]),
        "{json}"
    );
    node.remove_pods(pods.into()).await
}

pub async fn errors(node: &mut SingleNode) -> Result<()> {
    expect(&kubectl_bobbin(node, &["who", "10.0.0.300"])?, 2, "invalid IP address syntax")?;
    expect(&kubectl_bobbin(node, &["pools", "absent"])?, 1, "AddressPool absent does not exist")?;
    expect(&kubectl_bobbin(node, &["map", "absent"])?, 1, "AddressPool absent does not exist")?;
    expect(&kubectl_bobbin(node, &["pools", "--context", "absent"])?, 1, "choose a context with --context")?;
    expect(&kubectl_bobbin(node, &["pools", "--kubeconfig", "/absent"])?, 1, "can't read the kubeconfig /absent")?;
    expect(&kubectl_bobbin(node, &["completion", "bash"])?, 0, "confirm-deletion")
}
