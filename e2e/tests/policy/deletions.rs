//! The admission policies refuse an administrator's commands that would take addresses away from pods. Each refusal
//! names a remedy.

use anyhow::Result;
use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_e2e::suite::Suite;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{PolicyFixture, claim, refused, release};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("refused: deleting a pool in use that is not draining", deleting_a_pool_in_use),
        suite.test("an unused pool, and a draining pool in use, can be deleted", deleting_other_pools),
        suite.test("refused: deleting a claimed block, for every user", deleting_a_claimed_block),
        suite.test(
            "refused: deleting a free block that had an owner, for every user but the operator",
            deleting_a_freed_block,
        ),
        suite.test("refused: deleting a CRD of Bobbin without the annotation", deleting_crds),
        suite.test("refused: an administrator that changes the owner of a block", changing_an_owner),
        suite.test("refused: an administrator that removes the finalizer of a claimed block", removing_a_finalizer),
    ]
}

/// Creates a pool whose status has these counts.
async fn pool(fixture: &PolicyFixture, name: &str, second: u8, used: i64, claimed: i64) -> Result<Api<AddressPool>> {
    let pools: Api<AddressPool> = Api::all(fixture.admin());
    let pool = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name},
        "spec": {"subnets": [{"ipv4": format!("10.{second}.0.0/16")}]},
    });
    pools.create(&PostParams::default(), &serde_json::from_value(pool)?).await?;
    let status = json!({"status": {"used": used, "blocks": {"total": 8, "claimed": claimed, "free": 8 - claimed}}});
    pools.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(pools)
}

async fn deleting_a_pool_in_use(fixture: &mut PolicyFixture) -> Result<()> {
    for (name, second, used, claimed) in [("used", 71, 5, 1), ("claimed", 72, 0, 2)] {
        let pools = pool(fixture, name, second, used, claimed).await?;
        let words = format!(
            "AddressPool {name} is in use: pods have its addresses, or nodes have claimed its blocks. \
             Its deletion can not be undone. To delete the pool, drain it first: kubectl patch addresspool {name} --type=merge -p '{{\"spec\":{{\"draining\":true}}}}', or kubectl bobbin drain {name}"
        );
        refused(pools.delete(name, &DeleteParams::default()).await, 403, &words)?;
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        refused(pools.delete_collection(&DeleteParams::default(), &only).await, 403, &words)?;
    }
    Ok(())
}

async fn deleting_other_pools(fixture: &mut PolicyFixture) -> Result<()> {
    let pools = pool(fixture, "unused", 73, 0, 0).await?;
    pools.delete("unused", &DeleteParams::default()).await?;
    pool(fixture, "drained", 74, 5, 1).await?;
    let finalizers =
        Patch::Merge(json!({"metadata": {"finalizers": ["bobbin.dev/in-use"]}, "spec": {"draining": true}}));
    pools.patch("drained", &PatchParams::default(), &finalizers).await?;
    pools.delete("drained", &DeleteParams::default()).await?;
    // An administrator may repeat the deletion of a pool that is already being deleted, even if the pool is no longer
    // draining.
    pools.patch("drained", &PatchParams::default(), &Patch::Merge(json!({"spec": {"draining": false}}))).await?;
    pools.delete("drained", &DeleteParams::default()).await?;
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pools.patch("drained", &PatchParams::default(), &done).await?;
    Ok(())
}

async fn deleting_a_claimed_block(fixture: &mut PolicyFixture) -> Result<()> {
    let block = fixture.block(Some("n1")).await?.name_any();
    let words = format!(
        "AddressBlock {block} is claimed by node n1, whose pods may have addresses of the block. Drain pool default, so that the node releases"
    );
    for client in [fixture.admin(), fixture.operator()] {
        refused(Api::<AddressBlock>::all(client).delete(&block, &DeleteParams::default()).await, 403, &words)?;
    }
    let free = fixture.block(None).await?.name_any();
    Api::<AddressBlock>::all(fixture.operator()).delete(&free, &DeleteParams::default()).await?;
    Ok(())
}

async fn deleting_a_freed_block(fixture: &mut PolicyFixture) -> Result<()> {
    let block = fixture.block(None).await?.name_any();
    let freed = json!([{"op": "add", "path": "/spec/freeSince", "value": "2026-01-01T00:00:00.000000Z"}]);
    let freed = Patch::<()>::Json(serde_json::from_value(freed)?);
    Api::<AddressBlock>::all(fixture.operator()).patch(&block, &PatchParams::default(), &freed).await?;
    let words = format!(
        "AddressBlock {block} records in spec.freeSince since when its addresses cool down, and only the operator deletes such a block. \
         To remove the block, delete pool default."
    );
    refused(Api::<AddressBlock>::all(fixture.admin()).delete(&block, &DeleteParams::default()).await, 403, &words)?;
    Api::<AddressBlock>::all(fixture.operator()).delete(&block, &DeleteParams::default()).await?;
    Ok(())
}

async fn deleting_crds(fixture: &mut PolicyFixture) -> Result<()> {
    let kinds: Api<CustomResourceDefinition> = Api::all(fixture.admin());
    let only_try = DeleteParams { dry_run: true, ..DeleteParams::default() };
    for plural in ["addresspools", "addressblocks", "ipassignments"] {
        let name = format!("{plural}.bobbin.dev");
        let words = format!(
            "deleting the CustomResourceDefinition {name} also deletes all {plural}, so running pods lose their addresses. \
             To delete it nevertheless, first run: kubectl annotate crd {name} bobbin.dev/delete-all=yes"
        );
        refused(kinds.delete(&name, &only_try).await, 403, &words)?;
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        refused(kinds.delete_collection(&only_try, &only).await, 403, &words)?;
        let annotation = |value| Patch::Merge(json!({"metadata": {"annotations": {"bobbin.dev/delete-all": value}}}));
        kinds.patch(&name, &PatchParams::default(), &annotation(Some("yes"))).await?;
        kinds.delete(&name, &only_try).await?;
        kinds.patch(&name, &PatchParams::default(), &annotation(None)).await?;
    }
    Ok(())
}

async fn changing_an_owner(fixture: &mut PolicyFixture) -> Result<()> {
    let blocks: Api<AddressBlock> = Api::all(fixture.admin());
    let mut freed = fixture.block(Some("n1")).await?;
    release(&mut freed);
    let words =
        format!("AddressBlock {}: only the agents and the operator change nodeName and nodeUID", freed.name_any());
    refused(blocks.replace(&freed.name_any(), &PostParams::default(), &freed).await, 403, &words)?;
    let mut claimed = fixture.block(None).await?;
    claim(&mut claimed, "n1");
    refused(
        blocks.replace(&claimed.name_any(), &PostParams::default(), &claimed).await,
        403,
        "only the agents and the operator change nodeName and nodeUID",
    )
}

async fn removing_a_finalizer(fixture: &mut PolicyFixture) -> Result<()> {
    let block = fixture.block(Some("n1")).await?.name_any();
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let answer = Api::<AddressBlock>::all(fixture.admin()).patch(&block, &PatchParams::default(), &none).await;
    refused(
        answer,
        403,
        &format!("AddressBlock {block} is claimed by node n1, so the block keeps the finalizer bobbin.dev/in-use"),
    )
}
