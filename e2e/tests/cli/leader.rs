//! The commands while no operator leads.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::{expect, kubectl_bobbin};

const SENTENCE: &str = "no operator is leading in namespace bobbin-system since";

pub async fn missing(node: &mut SingleNode) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(node.client.clone(), "bobbin-system");
    wait_until("an operator leads", WAIT_TIMEOUT, || async {
        let pools = kubectl_bobbin(node, &["pools"])?;
        Ok(check(!pools.err.contains("may be out of date"), || format!("{pools:?}")))
    })
    .await?;
    node.stop_operator();
    // Set the Lease's `renewTime` back by an hour, as if the operator had ended an hour ago.
    let renewed = leases.get("bobbin-operator").await?.spec.and_then(|spec| spec.renew_time);
    let past = renewed.context("the Lease has no time")?.0 - jiff::SignedDuration::from_hours(1);
    let patch = json!({"spec": {"renewTime": format!("{past:.6}")}});
    leases.patch("bobbin-operator", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let pools = kubectl_bobbin(node, &["pools", "-o", "json"])?;
    expect(&pools, 0, SENTENCE)?;
    ensure!(pools.json()?["pools"].is_array() && pools.err.contains("these numbers may be out of date"), "{pools:?}");
    let found = kubectl_bobbin(node, &["check"])?;
    expect(&found, 3, SENTENCE)?;
    expect(&found, 3, "Lease bobbin-system/bobbin-operator")?;
    expect(&kubectl_bobbin(node, &["nodes", "confirm-deletion", "--yes"])?, 3, SENTENCE)?;
    node.start_operator()?;
    wait_until("an operator leads again", WAIT_TIMEOUT, || async {
        let pools = kubectl_bobbin(node, &["pools"])?;
        Ok(check(!pools.err.contains("may be out of date"), || format!("{pools:?}")))
    })
    .await
}
