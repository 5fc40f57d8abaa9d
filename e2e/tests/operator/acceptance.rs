//! An administrator can remove refused subnets. The blocks of accepted subnets keep their numbers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressPoolStatus;
use bobbin_e2e::suite::Suite;
use bobbin_messages::condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, accepted, says, why};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("a refused subnet is in the status, and can be removed without a change of block numbers", removed),
        suite.test("a pool whose only subnet is refused serves nobody until the subnet is changed", only_refused),
        suite.test("a pool of release 0.1.0 keeps the numbers of its blocks", old_status),
        suite.test("a pool that is restored without its status keeps the numbers of its blocks", restored),
    ]
}

/// Maps the name of each block of a pool to its IPv4 range.
async fn ranges(fixture: &OperatorFixture, pool: &str) -> Result<BTreeMap<String, String>> {
    let blocks = fixture.blocks_of(pool).await?.into_iter();
    Ok(blocks.map(|block| (block.metadata.name.unwrap_or_default(), block.spec.ipv4.unwrap_or_default())).collect())
}

/// Fails if a block in `before` no longer exists or has another range.
async fn same_numbers(fixture: &OperatorFixture, pool: &str, before: &BTreeMap<String, String>) -> Result<()> {
    let now = ranges(fixture, pool).await?;
    for (name, range) in &now {
        let known = before.get(name);
        ensure!(
            known.is_none_or(|known| known == range),
            "block {name} had the range {known:?} and now has the range {range}"
        );
    }
    ensure!(
        before.keys().all(|name| now.contains_key(name)),
        "the pool lost blocks; it had {before:?} and now has {now:?}"
    );
    Ok(())
}

fn firsts(status: &AddressPoolStatus) -> Vec<(&str, Option<i64>)> {
    let entries = status.accepted_subnets.iter();
    entries.map(|entry| (entry.ipv4.as_deref().unwrap_or_default(), entry.first_index)).collect()
}

async fn removed(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("owner", json!({"subnets": [{"ipv4": "10.150.0.0/24"}]})).await?;
    fixture.until_ready("owner").await?;
    let uid = fixture.node("keeper").await?;
    fixture.pool("typo", json!({"subnets": [{"ipv4": "10.151.0.0/25"}]})).await?;
    fixture.until_ready("typo").await?;
    fixture.claim("typo-1", "keeper", &uid).await?;
    let refused = json!({"subnets": [{"ipv4": "10.151.0.0/25"}, {"ipv4": "10.150.0.0/16"}, {"ipv4": "10.152.0.0/25"}]});
    fixture.change("typo", refused).await?;
    let status = fixture
        .until_status("typo", "lists the refused entry", RECONCILE_TIMEOUT, |status| {
            accepted(status) == 2 && says(status, condition::ACCEPTED) == "False"
        })
        .await?;
    let entry = status.refused_subnets.first().context("the status has no refused entry")?;
    ensure!(entry.ipv4.as_deref() == Some("10.150.0.0/16") && entry.reason == "PoolOverlap", "{entry:?}");
    ensure!(entry.message.contains("\"owner\"") && says(&status, condition::READY) == "True", "{status:?}");
    let before = ranges(fixture, "typo").await?;
    fixture.change("typo", json!({"subnets": [{"ipv4": "10.151.0.0/25"}, {"ipv4": "10.152.0.0/25"}]})).await?;
    let status = fixture
        .until_status("typo", "is accepted", RECONCILE_TIMEOUT, |status| says(status, condition::ACCEPTED) == "True")
        .await?;
    ensure!(status.refused_subnets.is_empty(), "{status:?}");
    ensure!(firsts(&status) == [("10.151.0.0/25", Some(0)), ("10.152.0.0/25", Some(4))], "{status:?}");
    // The blocks of a new subnet must get numbers that no other block has had.
    let added = json!({"subnets": [{"ipv4": "10.153.0.0/25"}, {"ipv4": "10.152.0.0/25"}, {"ipv4": "10.151.0.0/25"}]});
    fixture.change("typo", added).await?;
    let status =
        fixture.until_status("typo", "has three entries", RECONCILE_TIMEOUT, |status| accepted(status) == 3).await?;
    ensure!(firsts(&status).contains(&("10.153.0.0/25", Some(8))) && status.next_index == Some(12), "{status:?}");
    ensure!(fixture.owner("typo-1").await? == "keeper", "the operator removed the owner of a claimed block");
    same_numbers(fixture, "typo", &before).await
}

async fn only_refused(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("first", json!({"subnets": [{"ipv4": "10.154.0.0/24"}]})).await?;
    fixture.until_ready("first").await?;
    fixture.pool("second", json!({"subnets": [{"ipv4": "10.154.0.0/16"}]})).await?;
    let status = fixture
        .until_status("second", "is refused", RECONCILE_TIMEOUT, |status| says(status, condition::ACCEPTED) == "False")
        .await?;
    for type_ in [condition::EXHAUSTED, condition::BLOCKS_EXHAUSTED] {
        ensure!(
            says(&status, type_) == "Unknown" && why(&status, type_).starts_with("NothingAccepted: "),
            "{status:?}"
        );
    }
    fixture.change("second", json!({"subnets": [{"ipv4": "10.155.0.0/24"}]})).await?;
    let status = fixture.until_ready("second").await?;
    ensure!(says(&status, condition::ACCEPTED) == "True", "{status:?}");
    ensure!(says(&status, condition::BLOCKS_EXHAUSTED) == "False", "{status:?}");
    Ok(())
}

/// Builds a block as an older version of the operator wrote it.
fn block(pool: &str, index: i64, ipv4: &str, node: Option<(&str, &str)>) -> Value {
    let mut block = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock", "metadata": {"name": format!("{pool}-{index}")},
        "spec": {"poolName": pool, "index": index, "ipv4": ipv4},
    });
    if let Some((node, uid)) = node {
        (block["spec"]["nodeName"], block["spec"]["nodeUID"]) = (json!(node), json!(uid));
        block["metadata"]["finalizers"] = json!(["bobbin.dev/in-use"]);
    }
    block
}

async fn old_status(_: &mut OperatorFixture) -> Result<()> {
    // Start the operators only after the pool has got the status of the old release.
    let own = OperatorFixture::without_operators().await?;
    let fixture = &own;
    let subnets = json!([{"ipv4": "10.156.0.0/25"}, {"ipv4": "10.154.0.0/16"}, {"ipv4": "10.157.0.0/25"}]);
    fixture.pool("aged", json!({"subnets": subnets})).await?;
    let entry = |cidr| json!({"ipv4": cidr, "state": "Accepted", "since": "2026-01-01T00:00:00.000000Z"});
    let status = json!({"status": {"acceptedSubnets": [entry("10.156.0.0/25"), entry("10.157.0.0/25")]}});
    fixture.pools().patch_status("aged", &PatchParams::default(), &Patch::Merge(status)).await?;
    let uid = fixture.node("aged-node").await?;
    // The second subnet has 2048 blocks. The old operator reserved numbers for these blocks, although it never accepted
    // the subnet.
    for (index, ipv4, node) in [
        (0, "10.156.0.0/27", None),
        (1, "10.156.0.32/27", Some(("aged-node", uid.as_str()))),
        (2053, "10.157.0.32/27", Some(("aged-node", uid.as_str()))),
        (2054, "10.157.0.64/27", None),
    ] {
        let block = serde_json::from_value(block("aged", index, ipv4, node))?;
        fixture.blocks().create(&PostParams::default(), &block).await?;
    }
    fixture.pool("rival", json!({"subnets": [{"ipv4": "10.154.0.0/24"}]})).await?;
    let rival = json!({"status": {"acceptedSubnets": [entry("10.154.0.0/24")]}});
    fixture.pools().patch_status("rival", &PatchParams::default(), &Patch::Merge(rival)).await?;
    for number in 1..=2 {
        fixture.operator(&format!("newer-{number}"), &["--no-leader-election"], fixture.stop_token())?;
    }
    let before = ranges(fixture, "aged").await?;
    let numbered = [("10.156.0.0/25", Some(0)), ("10.157.0.0/25", Some(2052))];
    let status = fixture
        .until_status("aged", "has written the numbers", RECONCILE_TIMEOUT, |status| firsts(status) == numbered)
        .await?;
    ensure!(status.next_index == Some(2056), "{status:?}");
    fixture.change("aged", json!({"subnets": [{"ipv4": "10.156.0.0/25"}, {"ipv4": "10.157.0.0/25"}]})).await?;
    let status = fixture
        .until_status("aged", "is accepted", RECONCILE_TIMEOUT, |status| says(status, condition::ACCEPTED) == "True")
        .await?;
    ensure!(firsts(&status) == numbered, "{status:?}");
    ensure!(fixture.owner("aged-2053").await? == "aged-node", "the operator removed the owner of a claimed block");
    same_numbers(fixture, "aged", &before).await
}

async fn restored(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("restored-node").await?;
    // Create the blocks before the pool, as a restore may do.
    for (index, ipv4) in [(40, "10.158.0.0/27"), (43, "10.158.0.96/27")] {
        let block = serde_json::from_value(block("returned", index, ipv4, Some(("restored-node", &uid))))?;
        fixture.blocks().create(&PostParams::default(), &block).await?;
    }
    fixture.pool("returned", json!({"subnets": [{"ipv4": "10.159.0.0/25"}, {"ipv4": "10.158.0.0/25"}]})).await?;
    let status = fixture
        .until_status("returned", "is accepted", RECONCILE_TIMEOUT, |status| {
            says(status, condition::ACCEPTED) == "True"
        })
        .await?;
    ensure!(firsts(&status).contains(&("10.158.0.0/25", Some(40))), "{status:?}");
    let before = ranges(fixture, "returned").await?;
    same_numbers(fixture, "returned", &before).await?;
    // The name of this block does not fit any numbering of the subnet, so the operator must refuse the subnet.
    let block = serde_json::from_value(block("odd", 1, "10.160.0.96/27", Some(("restored-node", &uid))))?;
    fixture.blocks().create(&PostParams::default(), &block).await?;
    fixture.pool("odd", json!({"subnets": [{"ipv4": "10.160.0.0/25"}]})).await?;
    let status = fixture
        .until_status("odd", "is refused", RECONCILE_TIMEOUT, |status| says(status, condition::ACCEPTED) == "False")
        .await?;
    ensure!(why(&status, condition::ACCEPTED).contains("AddressBlock odd-1"), "{status:?}");
    fixture.blocks().delete("odd-1", &DeleteParams::default()).await?;
    fixture.patch_block("odd-1", &json!({"metadata": {"finalizers": null}})).await?;
    fixture.until_ready("odd").await.map(drop)
}
