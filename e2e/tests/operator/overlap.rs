//! Tests pools with overlapping subnets. The operator refuses the subnet that was added later, and never accepts both
//! subnets.

use anyhow::{Result, ensure};
use bobbin_crds::{AddressBlock, AddressPoolStatus};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use bobbin_ipam::BlockRange;
use bobbin_messages::condition;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, accepted, says, why};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("the later of two overlapping pools is not carved until the other goes", later_loses),
        suite.test("an older pool that appends a younger pool's subnet loses only that entry", older_appends),
        suite.test("of overlapping pools created at once exactly one is accepted", same_moment),
        suite.test("an overlap in IPv6 alone counts", ipv6_alone),
        suite.test("a pool that contains a node's address is refused and names the node", over_a_node),
    ]
}

fn refused(status: &AddressPoolStatus) -> bool {
    why(status, condition::READY).starts_with("Overlaps: ")
}

async fn later_loses(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("over-a", json!({"subnets": [{"ipv4": "10.20.0.0/16"}]})).await?;
    fixture.until_ready("over-a").await?;
    fixture.pool("over-b", json!({"subnets": [{"ipv4": "10.20.7.0/24"}]})).await?;
    let status = fixture.until_status("over-b", "is refused", RECONCILE_TIMEOUT, refused).await?;
    let message = why(&status, condition::READY);
    ensure!(says(&status, condition::READY) == "False" && accepted(&status) == 0, "{status:?}");
    ensure!(message.contains("over-a") && message.contains("10.20.0.0/16"), "{message}");
    ensure!(fixture.blocks_of("over-b").await?.is_empty(), "the operator created blocks for the refused pool");
    fixture.pools().delete("over-a", &DeleteParams::default()).await?;
    fixture.until_ready("over-b").await?;
    Ok(())
}

async fn over_a_node(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.node("at-home").await?;
    let status = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "InternalIP", "address": "2001:db8:7::7"}, {"type": "Hostname", "address": "at-home"},
    ]}});
    let nodes: Api<Node> = Api::all(fixture.client());
    nodes.patch_status("at-home", &PatchParams::default(), &Patch::Merge(status)).await?;
    for (pool, subnet) in
        [("cuts-off", json!({"ipv4": "192.0.2.0/27"})), ("cuts-off-6", json!({"ipv6": "2001:db8:7::/120"}))]
    {
        fixture.pool(pool, json!({"subnets": [subnet]})).await?;
        let status = fixture.until_status(pool, "is refused", RECONCILE_TIMEOUT, refused).await?;
        let message = why(&status, condition::READY);
        ensure!(message.contains("Node at-home") && message.contains("cut the node off"), "{message}");
        ensure!(fixture.blocks_of(pool).await?.is_empty(), "the operator created blocks for the refused pool");
    }
    fixture.delete_node("at-home").await?;
    fixture.until_ready("cuts-off").await.map(drop)
}

async fn older_appends(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("old", json!({"subnets": [{"ipv4": "10.21.0.0/24"}]})).await?;
    fixture.until_ready("old").await?;
    fixture.pool("young", json!({"subnets": [{"ipv4": "10.22.0.0/24"}]})).await?;
    fixture.until_ready("young").await?;
    fixture.change("old", json!({"subnets": [{"ipv4": "10.21.0.0/24"}, {"ipv4": "10.22.0.0/16"}]})).await?;
    let status = fixture.until_status("old", "says that an entry overlaps", RECONCILE_TIMEOUT, refused).await?;
    ensure!(accepted(&status) == 1 && says(&status, condition::READY) == "True", "{status:?}");
    ensure!(why(&status, condition::READY).contains("young"), "{status:?}");
    let young = fixture.until_ready("young").await?;
    ensure!(accepted(&young) == 1 && !refused(&young), "{young:?}");
    let strays = fixture.blocks_of("old").await?.into_iter().filter(|block| block.spec.index >= 8).count();
    ensure!(strays == 0, "the operator created {strays} blocks of the refused subnet");
    fixture.pools().delete("young", &DeleteParams::default()).await?;
    fixture
        .until_status("old", "has all its entries", RECONCILE_TIMEOUT, |status| {
            accepted(status) == 2 && !refused(status)
        })
        .await?;
    Ok(())
}

async fn same_moment(fixture: &mut OperatorFixture) -> Result<()> {
    for round in 0..6 {
        let names: Vec<String> = (0..4).map(|number| format!("race-{round}-{number}")).collect();
        let subnet = format!("10.{}.0.0/22", 30 + round);
        futures::future::try_join_all(
            names.iter().map(|name| fixture.pool(name, json!({"subnets": [{"ipv4": subnet}]}))),
        )
        .await?;
        wait_until(
            "the operator has accepted exactly one pool, and the others report the overlap",
            RECONCILE_TIMEOUT,
            || async {
                let (mut won, mut lost, mut seen) = (0, 0, Vec::new());
                for name in &names {
                    let status = fixture.pools().get(name).await?.status.unwrap_or_default();
                    won += accepted(&status);
                    lost += usize::from(refused(&status) && status.accepted_subnets.is_empty());
                    seen.push(why(&status, condition::READY));
                }
                ensure!(won <= 1, "the operator accepted {won} pools with the same addresses: {seen:?}");
                Ok(check(won == 1 && lost == names.len() - 1, || format!("{seen:?}")))
            },
        )
        .await?;
        no_overlapping_blocks(fixture).await?;
    }
    Ok(())
}

async fn no_overlapping_blocks(fixture: &OperatorFixture) -> Result<()> {
    let blocks: Vec<AddressBlock> = fixture.blocks().list(&ListParams::default()).await?.items;
    let mut ranges = Vec::new();
    for block in blocks {
        let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref())?;
        ranges.push((range, block.metadata.name.unwrap_or_default()));
    }
    for (number, (range, name)) in ranges.iter().enumerate() {
        let other = ranges[..number].iter().find(|(other, _)| other.overlaps(range));
        ensure!(other.is_none(), "block {name} overlaps block {other:?}");
    }
    Ok(())
}

async fn ipv6_alone(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("six-a", json!({"subnets": [{"ipv4": "10.40.0.0/24", "ipv6": "fd40::/120"}]})).await?;
    fixture.until_ready("six-a").await?;
    fixture.pool("six-b", json!({"subnets": [{"ipv4": "10.41.0.0/24", "ipv6": "fd40::/120"}]})).await?;
    fixture.until_status("six-b", "is refused", RECONCILE_TIMEOUT, refused).await?;
    Ok(())
}
