//! After a block has moved or a node is gone, the network sends nothing to the old place.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::pod::FAMILIES;
use bobbin_e2e::cluster::{Pool, Workload};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;

use crate::capture::Capture;
use crate::fixture::{LEARN_TIMEOUT, RESTART_TIME, Routing};
use crate::requests::Requests;

/// The only block of the pool `moving`. The block moves from one node to another.
const BLOCK: [&str; 2] = ["10.90.0.0/30", "fd00:90::/126"];

pub fn tests(suite: &Suite<Routing>) -> Vec<Trial> {
    vec![
        suite.test("after a block has moved to another node, no packet for it reaches its old node", moved_block),
        suite.test("the routes of a deleted node that is off go from the router", deleted_node),
    ]
}

async fn moved_block(routing: &mut Routing) -> Result<()> {
    routing.with_chart().await?;
    let cluster = &routing.cluster;
    let (old, new) = (cluster.node("n1")?, cluster.node("n2")?);
    let pool = |node: &str| Pool::named("moving").subnet(BLOCK[0], BLOCK[1]).bits(2).for_node(node).build();
    cluster.apply(pool("n1")).await?;
    cluster.await_condition(pool("n1"), "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("moving", &[]).await?;
    let pod = cluster.create_ready_pod(Workload::pod("moving", "before").on("n1")).await?;
    let routed = |to: &bobbin_e2e::cluster::node::Node| {
        let vias = [to.addresses().ipv4.to_string(), to.addresses().ipv6.to_string()];
        [0, 1].map(|family| (BLOCK[family].to_owned(), vias[family].clone()))
    };
    let (by_old, by_new) = (routed(old), routed(new));
    let what = "the router sends both ranges of the block to";
    routing
        .router
        .await_routes(&format!("{what} n1"), LEARN_TIMEOUT, |routes| by_old.iter().all(|route| routes.contains(route)))
        .await?;

    let filter = format!("udp and (dst net {} or dst net {})", BLOCK[0], BLOCK[1]);
    let (mut at_old, mut at_new) = (Capture::start(old, &filter).await?, Capture::start(new, &filter).await?);
    let mut streams = Vec::new();
    for family in FAMILIES {
        streams.push(Requests::start(&routing.outside, pod.address(family)?, Duration::from_millis(20))?);
    }
    wait_until("packets of both families reach the old node", Duration::from_secs(20), || {
        let packets = at_old.packets();
        async { Ok(check(both_families(&packets?, SystemTime::UNIX_EPOCH), || "a family is missing".to_owned())) }
    })
    .await?;

    cluster.delete_pod("moving", "before").await?;
    cluster.apply(pool("n2")).await?;
    wait_until("the old node has withdrawn the block from table 119", Duration::from_secs(40), || async {
        let table = format!(
            "{}{}",
            old.exec(["ip", "-4", "route", "show", "table", "119"])?,
            old.exec(["ip", "-6", "route", "show", "table", "119"])?
        );
        Ok(check(!BLOCK.iter().any(|range| table.contains(range)), || table))
    })
    .await?;
    // The agent waits for the scan interval of routing daemons before it releases the block.
    wait_until("the old node has released the block", Duration::from_secs(40), || async {
        let blocks = cluster.blocks_of_pool("moving").await?;
        let left = blocks.iter().filter(|block| block.spec.node_name.as_deref() == Some("n1")).count();
        Ok(check(left == 0, || format!("n1 still owns {left} blocks")))
    })
    .await?;
    let silent_from = SystemTime::now();
    cluster.create_ready_pod(Workload::pod("moving", "after").on("n2")).await?;
    routing
        .router
        .await_routes(&format!("{what} n2"), LEARN_TIMEOUT, |routes| by_new.iter().all(|route| routes.contains(route)))
        .await?;
    wait_until("packets of both families reach the new node", Duration::from_secs(20), || {
        let packets = at_new.packets();
        async move { Ok(check(both_families(&packets?, silent_from), || "a family is missing".to_owned())) }
    })
    .await?;
    for stream in streams {
        stream.end()?;
    }
    let late: Vec<_> = at_old.packets()?.into_iter().filter(|packet| packet.at > silent_from).collect();
    ensure!(
        late.is_empty(),
        "{} packets for the block reached n1 after n1 had released it, the first is {:?}",
        late.len(),
        late.first()
    );
    Ok(())
}

/// Whether packets of both families arrived after this time.
fn both_families(packets: &[crate::capture::Packet], after: SystemTime) -> bool {
    [false, true].iter().all(|ipv6| packets.iter().any(|packet| packet.at > after && packet.is_ipv6() == *ipv6))
}

async fn deleted_node(routing: &mut Routing) -> Result<()> {
    routing.with_chart().await?;
    routing.pod_on_each_node("left").await?;
    routing.router.await_blocks(&routing.cluster, &FAMILIES, LEARN_TIMEOUT).await?;
    let gone = routing.cluster.node("n2")?.addresses();
    let vias = [gone.ipv4.to_string(), gone.ipv6.to_string()];
    routing.cluster.remove_node("n2").await?;
    // BFD notices at once that the node is gone. But the router keeps the node's routes for `RESTART_TIME`, because the
    // node's BIRD could be restarting.
    let within = Duration::from_secs(RESTART_TIME + 10);
    routing
        .router
        .await_routes("the router has no route through the deleted node", within, |routes| {
            !routes.iter().any(|(_, via)| vias.contains(via))
        })
        .await?;
    ensure!(!routing.router.routes()?.is_empty(), "the router has lost the routes to the other node too");
    Ok(())
}
