//! Alerts about pods without a network, about duplicate addresses, and about the breaker. The breaker stops GC calls
//! that would remove too many attachments. A healthy node raises no alert.

use anyhow::{Context, Result};
use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::Call;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, wait_until};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{AGENT, METRIC_TIMEOUT, Monitored, addresses};
use crate::recording::{Alert, Recording};

/// The number of attachments that GC would remove in the test. The breaker stops a GC that would remove so many.
const TOO_MANY: usize = 6;

pub fn tests(suite: &Suite<Monitored>) -> Vec<Trial> {
    vec![
        suite.test("a healthy node raises no alert for hours", healthy),
        suite.test("BobbinBrokenAttachment fires when a running pod has lost its interface", broken),
        suite.test("BobbinInstallationProblem fires while another CNI configuration sorts first", shadowed),
        suite.test("BobbinInstallationProblem fires while the CNI plugin can't be installed", not_installed),
        suite.test("BobbinBreakerTripped fires when GC lists no attachment", breaker),
        suite.test("BobbinDuplicateAddress fires when an address has the assignment of another node", duplicate),
    ]
}

async fn healthy(monitored: &mut Monitored) -> Result<()> {
    let (pod, _) = monitored.running_pod("healthy", None).await?;
    monitored.await_calm().await?;
    Recording::default().repeat(480, &monitored.scrape()?, &[]).evaluate(monitored)?;
    monitored.end_pod("healthy", pod).await
}

async fn broken(monitored: &mut Monitored) -> Result<()> {
    let (pod, _) = monitored.running_pod("broken", None).await?;
    let before = monitored.await_metric("bobbin_agent_broken_attachments", &[], |value| value < 1.0).await?;
    let alias = format!("bobbin:{}/eth0", pod.container_id);
    let link =
        monitored.node.attachments()?.remove(&alias).with_context(|| format!("no link has the alias {alias}"))?;
    monitored.node.namespace.ip(&format!("link del {}", link.link))?;
    let after = monitored.await_metric("bobbin_agent_broken_attachments", &[], |value| value > 0.0).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(10, &after, &[Alert::OfInstance("BobbinBrokenAttachment", AGENT)])
        .evaluate(monitored)?;
    monitored.end_pod("broken", pod).await?;
    await_reconcile_pass(monitored).await
}

/// Waits until a reconcile pass finds no broken attachment. The agent starts a pass at once, because this function
/// removes a route of a new pod. The pass restores the route.
async fn await_reconcile_pass(monitored: &Monitored) -> Result<()> {
    let node = &monitored.node;
    let pod = node.sandbox()?;
    let address = addresses(&node.add(&pod)?).into_iter().next().context("the result of ADD has no address")?;
    node.namespace.ip(&format!("route del {address}/32 table 116"))?;
    monitored.await_metric("bobbin_agent_broken_attachments", &[], |value| value < 1.0).await?;
    node.remove_pods(vec![pod]).await?;
    monitored.await_calm().await
}

async fn shadowed(monitored: &mut Monitored) -> Result<()> {
    let (name, labels) = ("bobbin_agent_installation_problems", ["reason=\"CNIConfigShadowed\""]);
    let before = monitored.await_metric(name, &labels, |value| value < 1.0).await?;
    let foreign = monitored.node.path("cni-conf/05-foreign.conflist");
    std::fs::write(&foreign, b"{}")?;
    let after = monitored.await_metric(name, &labels, |value| value > 0.0).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(10, &after, &[Alert::OfInstance("BobbinInstallationProblem", AGENT)])
        .evaluate(monitored)?;
    std::fs::remove_file(&foreign)?;
    monitored.await_metric(name, &labels, |value| value < 1.0).await?;
    monitored.await_calm().await
}

async fn not_installed(monitored: &mut Monitored) -> Result<()> {
    let (name, labels) = ("bobbin_agent_installation_problems", ["reason=\"InstallFailed\""]);
    let before = monitored.await_metric(name, &labels, |value| value < 1.0).await?;
    let repairs = "bobbin_agent_installation_repairs_total";
    let repaired = before.value(repairs, &[]).context("the agent does not count restored files")?;
    // Put a directory in the place of the plugin, so that the agent can't install the plugin.
    let plugin = monitored.node.path("cni-bin/bobbin");
    std::fs::remove_file(&plugin)?;
    std::fs::create_dir(&plugin)?;
    let after = monitored.await_metric(name, &labels, |value| value > 0.0).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(10, &after, &[Alert::OfInstance("BobbinInstallationProblem", AGENT)])
        .evaluate(monitored)?;
    std::fs::remove_dir(&plugin)?;
    monitored.await_metric(name, &labels, |value| value < 1.0).await?;
    monitored.await_metric(repairs, &[], |value| value > repaired).await?;
    monitored.await_calm().await
}

async fn breaker(monitored: &mut Monitored) -> Result<()> {
    let node = &monitored.node;
    let mut pods = Vec::new();
    for _ in 0..TOO_MANY {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    node.await_assignments_of(&pods).await?;
    let before = monitored.scrape()?;
    let trips = before.value("bobbin_agent_breaker_trips_total", &[]).context("no metric counts breaker trips")?;
    let after = wait_until("GC has tripped the breaker", METRIC_TIMEOUT, || async {
        let gc = Call { verb: "GC", ..Call::default() }.with("cni.dev/valid-attachments", json!([]));
        let answer = node.call(&gc)?;
        let scrape = monitored.scrape()?;
        let tripped = scrape.value("bobbin_agent_breaker_trips_total", &[]).is_some_and(|value| value > trips);
        Ok(if tripped { Poll::Ready(scrape) } else { Poll::Pending(format!("{answer:?}")) })
    })
    .await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(10, &after, &[Alert::OfInstance("BobbinBreakerTripped", AGENT)])
        // The alert ends when the breaker has not tripped for more than an hour.
        .repeat(70, &after, &[])
        .evaluate(monitored)?;
    monitored.node.remove_pods(pods).await?;
    monitored.await_calm().await
}

async fn duplicate(monitored: &mut Monitored) -> Result<()> {
    let node = &monitored.node;
    let (running, _) = monitored.running_pod("first", None).await?;
    let before = monitored.scrape()?;
    let found = before.value("bobbin_agent_duplicate_addresses_total", &[]).context("no metric counts duplicates")?;
    // While the API server is unreachable, the agent can't see that another node gets an assignment of its pod's
    // address.
    node.proxy.set(NetworkFault::Refuse);
    let pod = node.sandbox()?;
    let address = addresses(&node.add(&pod)?).into_iter().next().context("the result of ADD has no address")?;
    let assignments: Api<IPAssignment> = Api::all(node.client.clone());
    let own = node.own_blocks("default").await?.pop().context("the node owns no block")?;
    let spec: IPAssignmentSpec = serde_json::from_value(json!({
        "poolName": "default", "blockName": own.metadata.name, "nodeName": "n9", "ipv4": address,
        "containerID": "elsewhere", "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
    }))?;
    assignments.create(&PostParams::default(), &IPAssignment::new(&address, spec)).await?;
    node.proxy.set(NetworkFault::None);
    let after = monitored.await_metric("bobbin_agent_duplicate_addresses_total", &[], |value| value > found).await?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(10, &after, &[Alert::OfInstance("BobbinDuplicateAddress", AGENT)])
        .evaluate(monitored)?;
    assignments.delete(&address, &DeleteParams::default()).await?;
    node.del(&pod)?;
    drop(pod);
    monitored.end_pod("first", running).await
}
