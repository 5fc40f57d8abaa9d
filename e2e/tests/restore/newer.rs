//! Tests blocks that the operator created after the snapshot. The restored pool lacks their subnet.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use bobbin_crds::AddressPool;
use bobbin_e2e::bare_nodes::{BareNodes, WAIT_TIMEOUT};
use bobbin_e2e::control_plane::Revision;
use bobbin_e2e::wait::{check, wait_until};
use ipnet::IpNet;
use kube::Api;
use serde_json::{Value, json};

use crate::fixture::{BLOCK_LEN, BLOCKS, Pods, SETTLE_TIMEOUT, await_outage, make_pool, restore};

/// The subnet that the test appends after the snapshot.
const NEWER: &str = "10.90.1.0/27";
/// The subnet that the test appends after the restore, while pods still have addresses of [`NEWER`].
const NEWEST: &str = "10.90.2.0/29";
const NEWEST_BLOCKS: usize = 2;

fn with_subnets(appended: &[&str]) -> Value {
    let subnets: Vec<Value> = ["10.90.0.0/27"].iter().chain(appended).map(|ipv4| json!({"ipv4": ipv4})).collect();
    json!({"subnets": subnets, "blockSizeBits": 2, "cooldownSeconds": 0})
}

pub async fn not_carved_over(nodes: &mut BareNodes) -> Result<()> {
    make_pool(nodes).await?;
    let snapshot = nodes.control_plane.save_snapshot()?;
    nodes.apply_pool("default", &with_subnets(&[NEWER]), BLOCKS + 1).await?;
    let mut pods = Pods::default();
    // Add more pods than the older subnet has addresses, so that some pods get addresses of the newer subnet.
    pods.add(nodes, 2, BLOCKS * BLOCK_LEN + 2)?;
    pods.await_assignments(nodes, WAIT_TIMEOUT).await?;
    let before = pods.addresses()?;
    let newer: IpNet = NEWER.parse()?;
    let inside: BTreeSet<IpAddr> =
        before.values().flatten().copied().filter(|address| newer.contains(address)).collect();
    ensure!(!inside.is_empty(), "no pod has an address of the newer subnet");

    let stopped = Instant::now();
    nodes.control_plane.stop();
    await_outage(stopped).await?;
    restore(nodes, &snapshot, Revision::Raised).await?;
    wait_until("an event says that a block is missing", SETTLE_TIMEOUT, || async {
        let events = nodes.events("BlockMissing").await?;
        Ok(check(!events.is_empty(), || "no event".to_owned()))
    })
    .await?;
    pods.await_assignments(nodes, SETTLE_TIMEOUT).await?;

    // The operator must create no blocks that contain the pods' addresses. It accepts the newer subnet only after these
    // pods have ended.
    nodes.apply_pool("default", &with_subnets(&[NEWER, NEWEST]), BLOCKS + 1).await?;
    let pools: Api<AddressPool> = Api::all(nodes.client.clone());
    wait_until("the pool's condition Ready names an assignment in the newer subnet", SETTLE_TIMEOUT, || async {
        let conditions = pools.get("default").await?.status.unwrap_or_default().conditions;
        let named = conditions.iter().any(|one| one.type_ == "Ready" && one.message.contains("IPAssignment 10.90.1."));
        Ok(check(named, || format!("{conditions:?}")))
    })
    .await?;
    for block in nodes.blocks("default").await? {
        let range: IpNet = block.spec.ipv4.unwrap_or_default().parse()?;
        ensure!(
            !newer.contains(&range),
            "the operator created block {range} of the newer subnet while pods still use the subnet"
        );
    }
    // The pods' assignments name blocks of the newer subnet. The blocks of the newest subnet must get other numbers.
    let accepted = pools.get("default").await?.status.unwrap_or_default().accepted_subnets;
    let newest =
        accepted.iter().find(|entry| entry.ipv4.as_deref() == Some(NEWEST)).and_then(|entry| entry.first_index);
    ensure!(
        newest == i64::try_from(2 * BLOCKS).ok(),
        "the newest subnet begins with the wrong block number {newest:?}: {accepted:?}"
    );
    ensure!(pods.addresses()? == before, "a pod lost its address");
    pods.end(nodes).await?;
    // Add more pods than the other two subnets have addresses, so that some pods must get addresses of the newer
    // subnet.
    let mut again = Pods::default();
    again.add(nodes, 2, (BLOCKS + NEWEST_BLOCKS) * BLOCK_LEN + 1)?;
    let all: Vec<IpAddr> = again.addresses()?.into_values().flatten().collect();
    ensure!(all.iter().any(|address| newer.contains(address)), "no pod has an address of the newer subnet: {all:?}");
    again.end(nodes).await
}
