//! Tests the admission policies with a stolen token of the operator. The policies refuse writes that the operator's
//! roles allow.

use anyhow::Result;
use bobbin_crds::{AddressBlock, AddressPool, FINALIZER};
use bobbin_e2e::suite::Suite;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fixture::{NAMESPACE, PolicyFixture, claim, refused, release, write_block};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("the operator releases blocks of any node", releases_any),
        suite.test("refused: an operator that claims or hands over a block", claiming),
        suite.test("refused: an operator that deletes a claimed block", deleting_claimed),
        suite.test("refused: an operator that sets foreign metadata on a block", foreign_metadata),
        suite.test("refused: an operator that changes the spec of a pool", changing_a_pool),
        suite
            .test("refused: an operator that lifts a denial, or writes other ConfigMaps and Leases", namespace_objects),
    ]
}

async fn patch(fixture: &PolicyFixture, block: &str, patch: &Value) -> kube::Result<AddressBlock> {
    Api::all(fixture.operator()).patch(block, &PatchParams::default(), &Patch::Merge(patch)).await
}

async fn releases_any(fixture: &mut PolicyFixture) -> Result<()> {
    let mut block = fixture.block(Some("n2")).await?;
    release(&mut block);
    block.metadata.finalizers = None;
    write_block(&fixture.operator(), &block, &PatchParams::default()).await.map(drop)?;
    Ok(())
}

async fn claiming(fixture: &mut PolicyFixture) -> Result<()> {
    let mut free = fixture.block(None).await?;
    claim(&mut free, "n1");
    let answer = write_block(&fixture.operator(), &free, &PatchParams::default()).await;
    refused(answer, 403, "the operator may not claim block")?;
    let taken = fixture.block(Some("n2")).await?.name_any();
    let hand_over = json!({"spec": {"nodeName": "n1"}});
    refused(patch(fixture, &taken, &hand_over).await, 422, "cannot go to n1 directly: release it first")
}

async fn deleting_claimed(fixture: &mut PolicyFixture) -> Result<()> {
    let blocks: Api<AddressBlock> = Api::all(fixture.operator());
    let (taken, free) = (fixture.block(Some("n2")).await?, fixture.block(None).await?);
    let answer = blocks.delete(&taken.name_any(), &DeleteParams::default()).await;
    refused(answer, 403, "is claimed by node n2, whose pods may have addresses of the block")?;
    blocks.delete(&free.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

async fn foreign_metadata(fixture: &mut PolicyFixture) -> Result<()> {
    let taken = fixture.block(Some("n2")).await?.name_any();
    let keep = json!({"metadata": {"finalizers": [FINALIZER, "example.com/keep"]}});
    refused(patch(fixture, &taken, &keep).await, 403, "only the finalizer bobbin.dev/in-use")?;
    let bare = json!({"metadata": {"finalizers": null}});
    refused(patch(fixture, &taken, &bare).await, 403, "without the finalizer bobbin.dev/in-use")?;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    refused(patch(fixture, &taken, &label).await, 403, "may not change owners, labels or annotations")
}

async fn changing_a_pool(fixture: &mut PolicyFixture) -> Result<()> {
    let pool = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "kept"},
        "spec": {"subnets": [{"ipv4": "10.202.0.0/24"}]},
    });
    let admin: Api<AddressPool> = Api::all(fixture.admin());
    admin.create(&PostParams::default(), &serde_json::from_value(pool)?).await?;
    let pools: Api<AddressPool> = Api::all(fixture.operator());
    let drain = Patch::Merge(json!({"spec": {"draining": true}}));
    let answer = pools.patch("kept", &PatchParams::default(), &drain).await;
    refused(answer, 403, "the operator may not change the spec of pool kept")?;
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": [FINALIZER]}}));
    pools.patch("kept", &PatchParams::default(), &finalizer).await?;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pools.patch("kept", &PatchParams::default(), &none).await?;
    admin.delete("kept", &DeleteParams::default()).await?;
    Ok(())
}

async fn namespace_objects(fixture: &mut PolicyFixture) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(fixture.operator(), NAMESPACE);
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let apply = PatchParams::apply("bobbin-operator");
    let other = maps.patch("other", &apply, &Patch::Apply(map("other"))).await;
    refused(other, 403, "cannot patch resource \"configmaps\"")?;
    let posted = maps.create(&PostParams::default(), &serde_json::from_value(map("bobbin-deleted-nodes"))?).await;
    refused(posted, 403, "cannot create resource \"configmaps\"")?;
    // Create the ConfigMap with an apply patch, because RBAC can restrict a creation to one name only for apply
    // patches.
    let denied = "bobbin-denied-nodes";
    maps.patch(denied, &apply, &Patch::Apply(map(denied))).await?;
    let add = Patch::Merge(json!({"data": {"n7": "why"}}));
    maps.patch(denied, &PatchParams::default(), &add).await?;
    for change in [json!({"data": {"n7": null}}), json!({"data": {"n7": "other"}}), json!({"data": null})] {
        let answer = maps.patch(denied, &PatchParams::default(), &Patch::Merge(change)).await;
        refused(answer, 403, "may not remove or change entries of ConfigMap bobbin-denied-nodes")?;
    }
    refused(maps.delete(denied, &DeleteParams::default()).await, 403, "cannot delete resource \"configmaps\"")?;
    Api::<ConfigMap>::namespaced(fixture.admin(), NAMESPACE).delete(denied, &DeleteParams::default()).await?;
    let leases: Api<Lease> = Api::namespaced(fixture.operator(), NAMESPACE);
    let lease =
        |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    let other = leases.patch("other", &apply, &Patch::Apply(lease("other"))).await;
    refused(other, 403, "cannot patch resource \"leases\"")?;
    for name in ["other", "bobbin-operator"] {
        let posted = leases.create(&PostParams::default(), &serde_json::from_value(lease(name))?).await;
        refused(posted, 403, "cannot create resource \"leases\"")?;
    }
    leases.patch("bobbin-operator", &apply, &Patch::Apply(lease("bobbin-operator"))).await?;
    Ok(())
}
