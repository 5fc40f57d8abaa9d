//! Alerts about differences between pods and assignments, and about a node whose agent is not running.

use anyhow::{Context, Result};
use bobbin_crds::IPAssignment;
use bobbin_e2e::suite::Suite;
use kube::Api;
use kube::api::DeleteParams;
use libtest_mimic::Trial;

use crate::fixture::Monitored;
use crate::recording::{Alert, Recording};

/// The labels of the metric series for IPv4 in the pool of the test's pods.
const POOL: [&str; 2] = ["pool=\"default\"", "family=\"ipv4\""];

pub fn tests(suite: &Suite<Monitored>) -> Vec<Trial> {
    vec![
        suite.test("BobbinAddressHeldNotUsed fires when the pod of an assignment is gone", held),
        suite.test(
            "BobbinAddressUsedNotHeld and BobbinNodeWithoutAgent fire when an assignment is deleted while no agent runs",
            used,
        ),
    ]
}

async fn held(monitored: &mut Monitored) -> Result<()> {
    let (pod, _) = monitored.running_pod("held", None).await?;
    monitored.await_calm().await?;
    let before = monitored.scrape()?;
    // Without a DEL, the agent frees the address of a deleted pod only if the Node is Ready. This Node is not Ready.
    monitored.node.delete_kube_pod("default", "held").await?;
    let after = monitored.await_metric("bobbin_operator_held_not_used_addresses", &POOL, |value| value > 0.0).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(40, &after, &[Alert::OfPool("BobbinAddressHeldNotUsed", "default")])
        .evaluate(monitored)?;
    monitored.node.remove_pods(vec![pod]).await?;
    monitored.await_calm().await
}

async fn used(monitored: &mut Monitored) -> Result<()> {
    let (pod, addresses) = monitored.running_pod("used", None).await?;
    monitored.await_calm().await?;
    let before = monitored.scrape()?;
    // A running agent would create the assignment again at once.
    monitored.node.kill_agent();
    let address = addresses.first().context("the pod has no address")?;
    let assignments: Api<IPAssignment> = Api::all(monitored.node.client.clone());
    assignments.delete(address, &DeleteParams::default()).await?;
    let after = monitored.await_metric("bobbin_operator_used_not_held_addresses", &POOL, |value| value > 0.0).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(
            30,
            &after,
            &[Alert::OfPool("BobbinAddressUsedNotHeld", "default"), Alert::Of("BobbinNodeWithoutAgent")],
        )
        .evaluate(monitored)?;
    monitored.node.start_agent().await?;
    monitored.await_metric("bobbin_operator_used_not_held_addresses", &POOL, |value| value < 1.0).await?;
    monitored.end_pod("used", pod).await
}
