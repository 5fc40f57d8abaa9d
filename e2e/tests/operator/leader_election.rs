//! Tests leader election, and outages of the API server. An operator recovers from an outage without help.

use anyhow::{Context, Result};
use bobbin_crds::AddressBlock;
use bobbin_e2e::control_plane::{ADMIN, ControlPlane, ControlPlaneOptions, install_crds};
use bobbin_e2e::ports::free_port;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{NAMESPACE, OperatorFixture, RECONCILE_TIMEOUT, arguments, metrics_page};

/// The beginning of a metric that only the leader exports.
const POOL_METRIC: &str = "\nbobbin_operator_pool_blocks{";

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("one of two operators leads, and the other takes over", succession),
        suite.test("an operator continues after an outage of the API server", outage),
    ]
}

async fn succession(fixture: &mut OperatorFixture) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(fixture.client(), NAMESPACE);
    let leader = || async {
        let lease = leases.get("bobbin-operator").await?;
        Ok(lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .filter(|holder| !holder.is_empty())
            .map_or(Poll::Pending("no operator leads".into()), Poll::Ready))
    };
    let stops = [CancellationToken::new(), CancellationToken::new()];
    for (number, stop) in stops.iter().enumerate() {
        fixture.operator(&number.to_string(), &["--retry-period=300ms"], stop.clone())?;
    }
    let first: usize = wait_until("an operator leads", RECONCILE_TIMEOUT, leader).await?.parse()?;
    stops[first].cancel();
    // The leader releases the Lease when it ends, so the other operator need not wait until the Lease expires.
    wait_until("the other operator leads", RECONCILE_TIMEOUT, || async {
        let Poll::Ready(now) = leader().await? else { return Ok(Poll::Pending("no operator leads".into())) };
        Ok(check(now != first.to_string(), || now))
    })
    .await?;
    stops[1 - first].cancel();
    Ok(())
}

async fn outage(_world: &mut OperatorFixture) -> Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    let client = control_plane.client().await?;
    install_crds(&client).await?;
    let stop = CancellationToken::new();
    let port = free_port()?;
    let metrics = format!("--metrics-address=127.0.0.1:{port}");
    let flags = ["--namespace=default", "--renew-deadline=3s", "--lease-duration=5s", "--retry-period=300ms", &metrics];
    let args = arguments(&control_plane.kubeconfig_for(ADMIN)?, "lonely", &flags)?;
    let operator = tokio::spawn(bobbin_operator::operate(args, stop.clone()));
    let blocks: Api<AddressBlock> = Api::all(client.clone());
    let carved = |pool: &'static str| {
        let (client, blocks) = (client.clone(), blocks.clone());
        async move {
            let subnet = if pool == "before" { "10.90.0.0/16" } else { "10.91.0.0/16" };
            let object = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": pool}, "spec": {"subnets": [{"ipv4": subnet}]}});
            let pools: Api<bobbin_crds::AddressPool> = Api::all(client);
            pools.create(&PostParams::default(), &serde_json::from_value(object)?).await.context(pool)?;
            wait_until(&format!("the operator has created blocks for pool {pool}"), RECONCILE_TIMEOUT * 2, || async {
                let params = ListParams::default().fields(&format!("spec.poolName={pool}"));
                let seen = blocks.list(&params).await?.items.len();
                Ok(check(seen >= 8, || format!("{seen} blocks")))
            })
            .await
        }
    };
    carved("before").await?;
    wait_until("the leader exports metrics of pools", RECONCILE_TIMEOUT, || async {
        let page = metrics_page(port).await?;
        Ok(check(page.contains(POOL_METRIC), || page.clone()))
    })
    .await?;
    control_plane.stop_apiserver();
    wait_until("the operator no longer leads and exports no metrics of pools", RECONCILE_TIMEOUT, || async {
        let page = metrics_page(port).await?;
        let is_standby = page.lines().any(|line| line == "bobbin_operator_is_leader 0");
        Ok(check(is_standby && !page.contains(POOL_METRIC), || page.clone()))
    })
    .await?;
    control_plane.start_apiserver().await?;
    carved("after").await?;
    anyhow::ensure!(!operator.is_finished(), "the operator ended during the outage");
    stop.cancel();
    operator.await?
}
