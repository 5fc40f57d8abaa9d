//! Tests direct routing. Each block names its node's addresses, and each node has routes to the blocks of other nodes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::Selector;
use bobbin_e2e::single_node::{NODE, NODE_IPV4, NODE_IPV6, SingleNode, WAIT_TIMEOUT, ip_json};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::fixture::{Block, PoolFixture, remove_other_node};
use super::{scaled, scaled_timeout, with_flags};

const DIRECT: &str = "--routing=direct";
pub const METRICS: &str = "127.0.0.1:9119";

/// The time scale of the tests that make resyncs frequent, because they need several resyncs.
const FREQUENT_RESYNCS_SCALE: f64 = 0.01;
/// How long three resyncs may take with [`FREQUENT_RESYNCS_SCALE`] on a busy machine.
const THREE_RESYNCS_TIMEOUT: Duration = Duration::from_secs(90);

/// Changes the first address in the status of the Node object.
pub async fn set_node_address(node: &SingleNode, ipv4: &str) -> Result<()> {
    set_node_addresses(node, &[ipv4, NODE_IPV6]).await
}

async fn set_node_addresses(node: &SingleNode, addresses: &[&str]) -> Result<()> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let status = json!({"status": {"addresses": addresses}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until a block's `nodeIPv4` is this address.
pub async fn carries(node: &SingleNode, block: &Block, ipv4: &str, within: Duration) -> Result<()> {
    wait_until(&format!("block {} has the node address {ipv4}", block.name), within, || async {
        let seen = block.get(node).await?.and_then(|block| block.spec.node_ipv4);
        Ok(check(seen.as_deref() == Some(ipv4), || format!("the block has {seen:?}")))
    })
    .await
}

pub async fn changed_address(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &[DIRECT]).await?;
    let mut fixture = PoolFixture::create(node, "moved", 51, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    set_node_address(node, "10.100.0.55").await?;
    carries(node, &block, "10.100.0.55", scaled_timeout(Duration::from_mins(1))).await?;
    set_node_address(node, NODE_IPV4).await?;
    carries(node, &block, NODE_IPV4, scaled_timeout(Duration::from_mins(1))).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// Waits until all blocks of this node have these values in `nodeIPv4` and `nodeIPv6`.
async fn all_carry(node: &SingleNode, ipv4: Option<&str>, ipv6: Option<&str>) -> Result<()> {
    wait_until(
        &format!("all blocks have the node addresses {ipv4:?} and {ipv6:?}"),
        scaled_timeout(Duration::from_mins(1)),
        || async {
            let own = node.blocks().await?.into_iter().filter(|block| block.spec.node_name.as_deref() == Some(NODE));
            let wrong = own
                .map(|block| block.spec)
                .filter(|spec| spec.node_ipv4.as_deref() != ipv4 || spec.node_ipv6.as_deref() != ipv6);
            let wrong: Vec<_> = wrong.map(|spec| (spec.ipv4, spec.node_ipv4, spec.node_ipv6)).collect();
            Ok(check(wrong.is_empty(), || format!("{wrong:?}")))
        },
    )
    .await
}

pub async fn late_address(node: &mut SingleNode) -> Result<()> {
    set_node_addresses(node, &[]).await?;
    with_flags(node, &[DIRECT]).await?;
    all_carry(node, None, None).await?;
    let mut fixture = PoolFixture::create(node, "late", 54, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    let spec = block.get(node).await?.context("the block does not exist")?.spec;
    ensure!(spec.node_name.as_deref() == Some(NODE), "this node does not own block {}: {spec:?}", block.name);
    ensure!(spec.node_ipv4.is_none() && spec.node_ipv6.is_none(), "the Node has no address: {spec:?}");
    set_node_address(node, NODE_IPV4).await?;
    all_carry(node, Some(NODE_IPV4), Some(NODE_IPV6)).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn edited_address(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &[DIRECT]).await?;
    let mut fixture = PoolFixture::create(node, "edited", 52, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let block = fixture.block(node, 0).await?;
    block.patch(node, json!({"nodeIPv4": "10.100.0.66"})).await?;
    carries(node, &block, NODE_IPV4, scaled_timeout(Duration::from_mins(1))).await?;
    // An agent also finds an address change that happened while the agent was stopped.
    node.kill_agent();
    block.patch(node, json!({"nodeIPv4": "10.100.0.66"})).await?;
    with_flags(node, &[DIRECT]).await?;
    carries(node, &block, NODE_IPV4, scaled_timeout(Duration::from_mins(1))).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// Reads a counter from the agent's metrics.
pub fn counter(node: &SingleNode, name: &str) -> Result<u64> {
    let page = node.namespace.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })??;
    let series = page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    let values: Vec<u64> = series.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(!values.is_empty(), "the metrics lack {name}: {page}");
    Ok(values.iter().sum())
}

pub async fn claims_are_no_repairs(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &[DIRECT, &format!("--metrics-address={METRICS}")]).await?;
    let fixture = PoolFixture::create(node, "theirs", 53, 28, 2, json!({})).await?;
    let block = Block::with(node, "10.90.53.0".parse()?).await?;
    let is_routed = || -> Result<bool> { Ok(node.table(254)?.iter().any(|(dst, _)| *dst == block.range.to_string())) };
    let before = counter(node, "bobbin_agent_datapath_repairs_total")?;
    for _ in 0..3 {
        block.give_to_other_node(node).await?;
        wait_until("this node has a route to the other node's block", WAIT_TIMEOUT, || async {
            Ok(check(is_routed()?, || "none".to_owned()))
        })
        .await?;
        remove_other_node(node).await?;
        wait_until("the route to the other node's block is gone", WAIT_TIMEOUT, || async {
            Ok(check(!is_routed()?, || "there".to_owned()))
        })
        .await?;
    }
    let after = counter(node, "bobbin_agent_datapath_repairs_total")?;
    ensure!(after == before, "the agent counted three claims of another node as {} repairs", after - before);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

/// The number of repairs in the agent's metric, and in events on its Node. Each repetition of an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repairs {
    metric: u64,
    events: i32,
}

impl Repairs {
    async fn of(node: &SingleNode) -> Result<Self> {
        let events: Api<Event> = Api::all(node.client.clone());
        let all = events.list(&ListParams::default().fields("reason=NetworkRepaired")).await?.items.into_iter();
        let own = all.filter(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(NODE)));
        let events = own.map(|event| event.series.map_or(1, |series| series.count)).sum();
        Ok(Self { metric: counter(node, "bobbin_agent_datapath_repairs_total")?, events })
    }
}

/// Waits until a block has a route through this gateway. For `None`, waits until the block has no route.
pub async fn routed(node: &SingleNode, block: &Block, via: Option<&str>) -> Result<()> {
    let command = format!("-4 route show exact {}", block.range);
    wait_until(&format!("block {} has a route through {via:?}", block.range), WAIT_TIMEOUT, || async {
        let routes = ip_json(&node.namespace, &command)?;
        let ways: Vec<&str> =
            routes.as_array().into_iter().flatten().filter_map(|one| one["gateway"].as_str()).collect();
        Ok(check(ways == Vec::from_iter(via), || format!("the gateways are {ways:?}")))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
}

/// Lets the other node claim blocks, change its node address in them, and release them. Waits for this node's routes
/// after each step.
async fn come_change_and_go(node: &SingleNode, blocks: &[Block]) -> Result<()> {
    for block in blocks {
        block.give_to_other_node(node).await?;
        routed(node, block, Some("10.100.0.77")).await?;
    }
    for block in blocks {
        block.patch(node, json!({"nodeIPv4": "10.100.0.78"})).await?;
        routed(node, block, Some("10.100.0.78")).await?;
    }
    remove_other_node(node).await?;
    for block in blocks {
        routed(node, block, None).await?;
    }
    Ok(())
}

pub async fn quiet_resyncs(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &[DIRECT, &format!("--metrics-address={METRICS}"), &scaled(FREQUENT_RESYNCS_SCALE)]).await?;
    let fixture = PoolFixture::create(node, "quiet", 55, 28, 2, json!({})).await?;
    let mut blocks = Vec::new();
    for address in ["10.90.55.0", "10.90.55.4", "10.90.55.8"] {
        blocks.push(Block::with(node, address.parse()?).await?);
    }
    come_change_and_go(node, &blocks).await?;
    let (before, mark) = (Repairs::of(node).await?, node.api()?.mark());
    // Count LIST requests for pools, because each resync sends one and the agent sends no others.
    let resyncs = Selector::verbs(&["list"]).of("addresspools");
    wait_until("three resyncs have passed", THREE_RESYNCS_TIMEOUT, || async {
        come_change_and_go(node, &blocks).await?;
        let passed = node.api()?.observed(mark, &resyncs).len();
        Ok(check(passed > 3, || format!("{passed}")))
    })
    .await?;
    let after = Repairs::of(node).await?;
    ensure!(
        after == before,
        "no other program changed a route, but the repairs grew from {before:?} to {after:?}; the end of the agent's log:\n{}",
        node.agent_log_tail()
    );

    // Check that a real repair raises both the metric and the count of events.
    blocks[0].give_to_other_node(node).await?;
    routed(node, &blocks[0], Some("10.100.0.77")).await?;
    node.namespace.ip(&format!("route del {}", blocks[0].range))?;
    wait_until("the agent reports the repair of a route that another program deleted", WAIT_TIMEOUT, || async {
        let now = Repairs::of(node).await?;
        Ok(check(now.metric > after.metric && now.events > after.events, || {
            format!("the repairs were {after:?} and are now {now:?}")
        }))
    })
    .await?;
    remove_other_node(node).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
