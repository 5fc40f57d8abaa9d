//! Tests the changes of blocks that an agent may make.

use anyhow::{Result, ensure};
use bobbin_crds::{AddressBlock, FINALIZER};
use bobbin_e2e::suite::Suite;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{PolicyFixture, claim, refused, release, write_block};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("an agent claims a free block for its node and releases it", claims_and_gives_back),
        suite
            .test("an agent claims a free block by a patch without a read, and only for its own node", claims_by_patch),
        suite.test("an agent claims after its Node was re-created", claims_after_its_node_was_re_created),
        suite.test("refused: claiming for another node", claiming_for_another_node),
        suite.test("refused: freeing another node's block", freeing_another_nodes_block),
        suite.test("refused: removing the finalizer of a block", removing_the_finalizer),
        suite.test("refused: a finalizer of another kind", adding_a_finalizer),
        suite.test("refused: a claim without the finalizer", claiming_without_the_finalizer),
        suite.test("refused: changing a free block without claiming it", changing_a_free_block),
        suite.test("refused: setting freeSince of a block that stays claimed", setting_free_since),
        suite.test("refused: a claim that removes freeSince of a cooling block", claiming_without_its_rest),
        suite.test("refused: an owner for the garbage collector", adding_an_owner),
        suite.test("refused: a claim with a token that is bound to no pod", claiming_with_a_token_of_no_pod),
    ]
}

async fn replace(client: Client, block: &AddressBlock) -> kube::Result<AddressBlock> {
    write_block(&client, block, &PatchParams::default()).await
}

async fn claims_and_gives_back(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n1");
    let mut block = replace(fixture.agent(), &block).await?;
    release(&mut block);
    let mut block = replace(fixture.agent(), &block).await?;
    claim(&mut block, "n1");
    replace(fixture.agent(), &block).await?;
    Ok(())
}

async fn claims_by_patch(fixture: &mut PolicyFixture) -> Result<()> {
    let blocks: Api<AddressBlock> = Api::all(fixture.agent());
    let claim = |node: &str| -> Result<Patch<()>> {
        Ok(Patch::Json(serde_json::from_value(json!([
            {"op": "test", "path": "/spec/nodeName", "value": null},
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
            {"op": "add", "path": "/spec/nodeName", "value": node},
            {"op": "add", "path": "/spec/nodeUID", "value": "0f1e2d3c-0000-4000-8000-000000000001"},
        ]))?))
    };
    let block = fixture.block(None).await?.name_any();
    let in_anothers_name = blocks.patch(&block, &PatchParams::default(), &claim("n2")?).await;
    refused(in_anothers_name, 403, "an agent may claim blocks only for its own node")?;
    let claimed = blocks.patch(&block, &PatchParams::default(), &claim("n1")?).await?;
    ensure!(claimed.spec.node_name.as_deref() == Some("n1"), "{:?}", claimed.spec);
    // The patch must fail if the block is already claimed, whether by this node or by another node.
    let taken = fixture.block(Some("n2")).await?.name_any();
    for block in [block, taken] {
        refused(blocks.patch(&block, &PatchParams::default(), &claim("n1")?).await, 422, "")?;
    }
    Ok(())
}

async fn claims_after_its_node_was_re_created(fixture: &mut PolicyFixture) -> Result<()> {
    let nodes: Api<Node> = Api::all(fixture.admin());
    let mut node = nodes.get("n1").await?;
    nodes.delete("n1", &DeleteParams::default()).await?;
    node.metadata.resource_version = None;
    node.metadata.uid = None;
    nodes.create(&PostParams::default(), &node).await?;
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n1");
    replace(fixture.agent(), &block).await?;
    Ok(())
}

async fn claiming_for_another_node(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n2");
    let words = format!(
        "the agent of node n1 may not claim block {} for node n2: an agent may claim blocks only for its own node",
        block.name_any()
    );
    refused(replace(fixture.agent(), &block).await, 403, &words)
}

async fn freeing_another_nodes_block(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n2")).await?;
    release(&mut block);
    let words = format!("block {} is claimed by node n2, so the agent of node n1 may not change it", block.name_any());
    refused(replace(fixture.agent(), &block).await, 403, &words)
}

async fn removing_the_finalizer(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n1")).await?;
    release(&mut block);
    block.metadata.finalizers = None;
    refused(replace(fixture.agent(), &block).await, 403, "may not remove a finalizer of block")
}

async fn adding_a_finalizer(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n1");
    block.metadata.finalizers.get_or_insert_default().push("example.com/mine".to_owned());
    refused(replace(fixture.agent(), &block).await, 403, "may add only the finalizer bobbin.dev/in-use")
}

async fn claiming_without_the_finalizer(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n1");
    block.metadata.finalizers = None;
    refused(replace(fixture.agent(), &block).await, 403, "lacks the finalizer bobbin.dev/in-use")
}

async fn changing_a_free_block(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    block.spec.free_since = Some(MicroTime(jiff::Timestamp::UNIX_EPOCH));
    refused(replace(fixture.agent(), &block).await, 403, "may claim it, but may not change anything else")
}

async fn setting_free_since(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n1")).await?;
    block.spec.free_since = Some(MicroTime(jiff::Timestamp::UNIX_EPOCH));
    refused(replace(fixture.agent(), &block).await, 403, "may set freeSince of block")
}

async fn claiming_without_its_rest(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n1")).await?;
    release(&mut block);
    let mut block = replace(fixture.agent(), &block).await?;
    claim(&mut block, "n1");
    block.spec.free_since = None;
    refused(replace(fixture.agent(), &block).await, 403, "may set freeSince of block")
}

async fn adding_an_owner(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n1")).await?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: "n1".to_owned(),
        uid: "0f1e2d3c-0000-4000-8000-000000000009".to_owned(),
        ..OwnerReference::default()
    };
    block.metadata.owner_references = Some(vec![owner]);
    refused(replace(fixture.agent(), &block).await, 403, "an owner, because the garbage collector would delete")
}

async fn claiming_with_a_token_of_no_pod(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(None).await?;
    claim(&mut block, "n1");
    refused(
        replace(fixture.agent_of_no_pod(), &block).await,
        403,
        "this token of the agents' service account names no node",
    )
}
