//! Tests how the operator creates blocks. It keeps a few free blocks ahead of demand, replaces claimed blocks, and
//! creates only allowed blocks.

use anyhow::{Result, ensure};
use bobbin_crds::FINALIZER;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use bobbin_messages::condition;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, accepted, says};

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("a few free blocks are carved ahead of demand, not the whole pool", few_free_blocks),
        suite.test("a claimed block is replaced by a free one at once", refill),
        suite.test("a free block that an administrator deleted is carved again", deleted_by_hand),
        suite.test("an appended subnet is carved", append),
        suite.test("wholly reserved blocks are not carved", reserved),
        suite.test("the largest IPv6 pool is carved in part and its counts are capped", largest),
        suite.test("a pool of one block is carved", one_block),
        suite.test("a released block loses its finalizer", given_back),
        suite.test("a block released unused does not cool down, and one of unknown use does", went_back_unused),
        suite.test(
            "a free block keeps its finalizer while it has assignments, and foreign finalizers always",
            with_assignments,
        ),
        suite.test("a deleted block is created again for the only existing node that its assignments name", made_again),
        suite.test("a pool is not carved over assignments that an earlier pool left", left_over),
    ]
}

async fn few_free_blocks(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("ahead", json!({"subnets": [{"ipv4": "10.1.0.0/16", "ipv6": "fd01::/112"}]})).await?;
    let status = fixture.until_ready("ahead").await?;
    let blocks = fixture.blocks_of("ahead").await?;
    ensure!(
        blocks.len() >= 8 && blocks.len() < 512,
        "the operator must create a few free blocks, but the pool has {}",
        blocks.len()
    );
    let first = &blocks[0];
    ensure!(first.metadata.name.as_deref() == Some("ahead-0"), "{:?}", first.metadata.name);
    ensure!(first.spec.ipv4.as_deref() == Some("10.1.0.0/27") && first.spec.ipv6.as_deref() == Some("fd01::/123"));
    ensure!(first.metadata.owner_references.is_none() && first.metadata.finalizers.is_none(), "{:?}", first.metadata);
    ensure!(status.blocks.total == 2048 && status.blocks.free == 2048 && status.free == 65536, "{status:?}");
    Ok(())
}

async fn refill(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("refill", json!({"subnets": [{"ipv4": "10.2.0.0/16"}]})).await?;
    fixture.until_ready("refill").await?;
    // Count the blocks before each claim, because the nodes of other tests change the number of free blocks.
    for round in 0..5 {
        let before = fixture.blocks_of("refill").await?.len();
        fixture.claim(&format!("refill-{round}"), "a-node", "a-uid").await?;
        wait_until("the operator has created another block", RECONCILE_TIMEOUT, || async {
            let now = fixture.blocks_of("refill").await?.len();
            Ok(check(now > before, || format!("{now} blocks")))
        })
        .await?;
    }
    Ok(())
}

async fn deleted_by_hand(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("by-hand", json!({"subnets": [{"ipv4": "10.12.0.0/24"}]})).await?;
    fixture.until_ready("by-hand").await?;
    let uid = fixture.blocks().get("by-hand-0").await?.metadata.uid;
    fixture.blocks().delete("by-hand-0", &DeleteParams::default()).await?;
    wait_until("the block exists again", RECONCILE_TIMEOUT, || async {
        let now = fixture.blocks().get_opt("by-hand-0").await?.and_then(|block| block.metadata.uid);
        Ok(check(now.is_some() && now != uid, || format!("{now:?}")))
    })
    .await
}

async fn append(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("append", json!({"subnets": [{"ipv4": "10.3.0.0/27"}]})).await?;
    fixture.until_ready("append").await?;
    fixture.claim("append-0", "a-node", "a-uid").await?;
    fixture
        .until_status("append", "has no free block", RECONCILE_TIMEOUT, |status| {
            status.free_window.is_none() && status.blocks.free == 0
        })
        .await?;
    fixture.change("append", json!({"subnets": [{"ipv4": "10.3.0.0/27"}, {"ipv4": "10.3.1.0/27"}]})).await?;
    let more = |status: &bobbin_crds::AddressPoolStatus| accepted(status) == 2 && status.free_window.is_some();
    fixture.until_status("append", "has a free block again", RECONCILE_TIMEOUT, more).await?;
    let blocks = fixture.blocks_of("append").await?;
    ensure!(blocks.len() == 2 && blocks[1].spec.ipv4.as_deref() == Some("10.3.1.0/27"), "{blocks:?}");
    Ok(())
}

async fn reserved(fixture: &mut OperatorFixture) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": "10.4.0.0/25"}], "reserved": ["10.4.0.0/27", "10.4.0.64", "10.4.0.96/28"]});
    fixture.pool("reserved", spec).await?;
    let status = fixture.until_ready("reserved").await?;
    let indices: Vec<i64> = fixture.blocks_of("reserved").await?.iter().map(|block| block.spec.index).collect();
    ensure!(indices == [1, 2, 3], "{indices:?}");
    let counts = status.addresses.ipv4.unwrap_or_default();
    ensure!((counts.total, counts.reserved, counts.free) == (128, 32 + 1 + 16, 79), "{counts:?}");
    ensure!(status.blocks.total == 4 && status.blocks.free == 3, "{:?}", status.blocks);
    // If an administrator later reserves a range, the operator deletes the free block of this range.
    fixture.change("reserved", json!({"reserved": ["10.4.0.0/26", "10.4.0.64", "10.4.0.96/28"]})).await?;
    wait_until("the operator has deleted block 1", RECONCILE_TIMEOUT, || async {
        let blocks = fixture.blocks_of("reserved").await?;
        Ok(check(blocks.len() == 2 && blocks[0].spec.index == 2, || format!("{} blocks", blocks.len())))
    })
    .await
}

async fn largest(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("largest", json!({"subnets": [{"ipv6": "fd05::/32"}], "blockSizeBits": 16})).await?;
    let status = fixture.until_ready("largest").await?;
    let counts = status.addresses.ipv6.unwrap_or_default();
    ensure!(
        counts.total == (1 << 53) - 1 && counts.free == (1 << 53) - 1 && status.addresses.ipv4.is_none(),
        "{status:?}"
    );
    ensure!(status.blocks.total == 1 << 40, "{:?}", status.blocks);
    let blocks = fixture.blocks_of("largest").await?;
    ensure!(blocks.len() < 512 && blocks[1].spec.ipv6.as_deref() == Some("fd05::1:0/112"), "{:?}", blocks[1].spec);
    Ok(())
}

async fn one_block(fixture: &mut OperatorFixture) -> Result<()> {
    fixture
        .pool("one", json!({"subnets": [{"ipv4": "10.6.0.1/32", "ipv6": "fd06::1/128"}], "blockSizeBits": 0}))
        .await?;
    let status = fixture.until_ready("one").await?;
    ensure!(
        status.free == 1 && status.blocks.total == 1 && says(&status, condition::EXHAUSTED) == "False",
        "{status:?}"
    );
    fixture.claim("one-0", "a-node", "a-uid").await?;
    fixture.create_assignment("10.6.0.1", "one-0", "a-node").await?;
    fixture
        .until_status("one", "is exhausted", RECONCILE_TIMEOUT, |status| {
            says(status, condition::EXHAUSTED) == "True" && status.used == 1
        })
        .await?;
    fixture.forget("10.6.0.1").await?;
    fixture.release("one-0").await?;
    fixture
        .until_status("one", "has its block again", RECONCILE_TIMEOUT, |status| {
            says(status, condition::EXHAUSTED) == "False" && status.free_window.is_some()
        })
        .await?;
    Ok(())
}

async fn given_back(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("back", json!({"subnets": [{"ipv4": "10.7.0.0/24"}]})).await?;
    fixture.until_ready("back").await?;
    fixture.claim("back-3", "a-node", "a-uid").await?;
    fixture.release("back-3").await?;
    let block = fixture.until_free("back-3", RECONCILE_TIMEOUT).await?;
    ensure!(block.spec.free_since.is_some(), "{:?}", block.spec);
    Ok(())
}

async fn went_back_unused(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("unused-back", json!({"subnets": [{"ipv4": "10.9.0.0/24"}]})).await?;
    fixture.until_ready("unused-back").await?;
    let free = json!({"spec": {"nodeName": null, "nodeUID": null}});
    let uid = fixture.node("unused-node").await?;
    fixture.claim("unused-back-3", "unused-node", &uid).await?;
    fixture.patch_block("unused-back-3", &free).await?;
    let block = fixture.until_free("unused-back-3", RECONCILE_TIMEOUT).await?;
    ensure!(block.spec.free_since.is_none(), "{:?}", block.spec);
    fixture.claim("unused-back-4", "unused-node", &uid).await?;
    fixture.create_assignment("10.9.0.129", "unused-back-4", "unused-node").await?;
    fixture.forget("10.9.0.129").await?;
    fixture.patch_block("unused-back-4", &free).await?;
    let block = fixture.until_free("unused-back-4", RECONCILE_TIMEOUT).await?;
    ensure!(block.spec.free_since.is_some(), "{:?}", block.spec);
    Ok(())
}

async fn with_assignments(fixture: &mut OperatorFixture) -> Result<()> {
    let uid = fixture.node("assigned-node").await?;
    fixture.pool("assigned", json!({"subnets": [{"ipv4": "10.10.0.0/24"}]})).await?;
    fixture.until_ready("assigned").await?;
    for block in ["assigned-1", "assigned-2"] {
        fixture.claim(block, "assigned-node", &uid).await?;
    }
    fixture.create_assignment("10.10.0.33", "assigned-1", "assigned-node").await?;
    let finalizers = json!({"metadata": {"finalizers": ["example.com/other", FINALIZER]}});
    fixture.patch_block("assigned-1", &finalizers).await?;
    fixture.release("assigned-1").await?;
    // Release another block and wait until it is free. By then, the operators have also seen the release of the first
    // block.
    fixture.release("assigned-2").await?;
    fixture.until_free("assigned-2", RECONCILE_TIMEOUT).await?;
    let block = fixture.blocks().get("assigned-1").await?;
    let finalizers = block.metadata.finalizers.clone().unwrap_or_default();
    ensure!(finalizers.iter().any(|finalizer| finalizer == FINALIZER), "{finalizers:?}");
    let given_back = block.spec.free_since.clone();
    fixture.forget("10.10.0.33").await?;
    wait_until("the operators have removed Bobbin's finalizer and kept the foreign one", RECONCILE_TIMEOUT, || async {
        let block = fixture.blocks().get("assigned-1").await?;
        let finalizers = block.metadata.finalizers.unwrap_or_default();
        Ok(check(finalizers == ["example.com/other"] && block.spec.free_since > given_back, || {
            format!("{finalizers:?}")
        }))
    })
    .await
}

async fn made_again(fixture: &mut OperatorFixture) -> Result<()> {
    let mut uids = Vec::new();
    for node in ["again-a", "again-b"] {
        uids.push(fixture.node(node).await?);
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}]}});
        let nodes: Api<Node> = Api::all(fixture.client());
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    fixture.pool("made-again", json!({"subnets": [{"ipv4": "10.11.0.0/24"}]})).await?;
    fixture.until_ready("made-again").await?;
    for block in ["made-again-1", "made-again-2"] {
        fixture.claim(block, "again-a", &uids[0]).await?;
    }
    fixture.create_assignment("10.11.0.33", "made-again-1", "again-a").await?;
    fixture.create_assignment("10.11.0.34", "made-again-1", "again-b").await?;
    fixture.create_assignment("10.11.0.65", "made-again-2", "again-a").await?;
    for block in ["made-again-1", "made-again-2"] {
        fixture.patch_block(block, &json!({"metadata": {"finalizers": null}})).await?;
        fixture.blocks().delete(block, &DeleteParams::default()).await?;
    }
    let block = wait_until("the second block exists again", RECONCILE_TIMEOUT, || async {
        let block = fixture.blocks().get_opt("made-again-2").await?;
        Ok(block.map_or(Poll::Pending("the block does not exist".into()), Poll::Ready))
    })
    .await?;
    let spec = &block.spec;
    ensure!(spec.node_name.as_deref() == Some("again-a") && spec.node_uid.as_ref() == Some(&uids[0]), "{spec:?}");
    ensure!(
        spec.node_ipv4.as_deref() == Some("192.0.2.77") && spec.ipv4.as_deref() == Some("10.11.0.64/27"),
        "{spec:?}"
    );
    ensure!(block.metadata.finalizers.as_deref() == Some(&[FINALIZER.to_owned()][..]), "{:?}", block.metadata);
    let other = fixture.blocks().get_opt("made-again-1").await?;
    ensure!(
        other.is_none(),
        "the assignments of a block name two nodes, but the operator created the block again: {other:?}"
    );
    fixture.forget("10.11.0.34").await?;
    wait_until("the first block exists again, and the remaining node owns it", RECONCILE_TIMEOUT, || async {
        let block = fixture.blocks().get_opt("made-again-1").await?;
        let node = block.and_then(|block| block.spec.node_name);
        Ok(check(node.as_deref() == Some("again-a"), || format!("{node:?}")))
    })
    .await
}

async fn left_over(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.create_assignment("10.8.0.70", "earlier-2", "a-node").await?;
    // The operators' watches may not have shown the assignment yet. So an operator must read the assignments from the
    // API server.
    fixture.pool("left", json!({"subnets": [{"ipv4": "10.8.0.0/24"}]})).await?;
    let status = fixture
        .until_status("left", "names the assignments that prevent carving", RECONCILE_TIMEOUT, |status| {
            says(status, condition::READY) == "False"
                && !status.conditions[0].message.is_empty()
                && status.conditions[0].reason == "Overlaps"
        })
        .await?;
    ensure!(status.conditions[0].message.contains("10.8.0.70"), "{:?}", status.conditions);
    ensure!(fixture.blocks_of("left").await?.is_empty(), "the operator created blocks over existing assignments");
    fixture.forget("10.8.0.70").await?;
    fixture.until_ready("left").await?;
    Ok(())
}
