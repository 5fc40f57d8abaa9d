//! Another program deletes or renames the host link of a running pod, or clears the link's alias. The pod keeps its
//! address.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT, ip_json};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::Value;

use super::{
    addresses, await_reconcile, await_two_stale_checks, create_small_pool, end, has_assignment, link_of,
    metrics_endpoint, restart,
};

/// How long the event about a broken pod may take. The agent reports the pod within 2 s, and a busy machine may deliver
/// the event later.
const EVENT_TIMEOUT: Duration = Duration::from_secs(6);

pub async fn deleted(node: &mut SingleNode) -> Result<()> {
    create_small_pool(node, "broken", "10.80.0.0/31", 1).await?;
    let broken = node.kube_pod("default", "broken-0", Some("broken")).await?;
    let held = addresses(&node.add(&broken)?).into_iter().next().context("the result has no address")?;
    let other = node.kube_pod("default", "broken-1", Some("broken")).await?;
    node.add(&other)?;
    await_assignment(node, &broken).await?;
    let link = link_of(node, &broken)?;
    node.namespace.ip(&format!("link del {link}"))?;
    let sentence =
        format!("pod default/broken-0 ({held}) has lost its interface {link} and has no network; delete the pod");
    let told =
        wait_until("a Warning event on the pod says that the pod has lost its interface", EVENT_TIMEOUT, || async {
            let warnings = node.pod_warnings("default", "broken-0").await?;
            Ok(check(warnings.iter().any(|warning| warning.contains(&sentence)), || format!("{warnings:?}")))
        })
        .await;
    await_two_stale_checks(node).await?;
    await_two_stale_checks(node).await?;
    let next = node.kube_pod("default", "broken-2", Some("broken")).await?;
    let answer = node.call(&next.call("ADD"))?;
    ensure!(
        answer.exit != 0,
        "broken-2 got an address although both addresses are in use, and {held} still belongs to broken-0; the result is {}",
        answer.stdout.trim()
    );
    let error = answer.error()?;
    ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
    has_assignment(node, &broken).await?;
    told?;
    let gauge = metrics_endpoint::metric(node, "bobbin_agent_broken_attachments")?;
    ensure!((gauge - 1.0).abs() < f64::EPSILON, "bobbin_agent_broken_attachments is {gauge}, not 1");
    end(node, vec![broken, other, next], &["broken-0", "broken-1", "broken-2"]).await
}

async fn await_assignment(node: &SingleNode, pod: &Sandbox) -> Result<()> {
    wait_until("the pod has its assignment", WAIT_TIMEOUT, || async {
        has_assignment(node, pod).await?;
        Ok(check(true, String::new))
    })
    .await
}

/// The routes in table 116 to a pod's addresses, over any link.
fn routes(node: &SingleNode, pod: &Sandbox) -> Result<Vec<(String, String)>> {
    let own: Vec<String> = pod.addresses()?.iter().map(ToString::to_string).collect();
    Ok(node.table(116)?.into_iter().filter(|(dst, _)| own.contains(dst)).collect())
}

/// Checks that table 116 has a route to each of the pod's two addresses, and that CHECK succeeds.
fn is_well(node: &SingleNode, pod: &Sandbox, result: &Value) -> Result<()> {
    let routes = routes(node, pod)?;
    ensure!(
        routes.len() == 2,
        "the running pod must have two routes, but has {routes:?}; the end of the agent's log:\n{}",
        node.agent_log_tail()
    );
    node.call(&pod.check(result))?.ok().context("CHECK of a running pod failed")?;
    Ok(())
}

pub async fn prefix_changed(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    restart(node, &["--veth-prefix=xyz".to_owned()]).await?;
    await_reconcile(node).await?;
    is_well(node, &pod, &result).context("the pod lost its network when the link prefix changed from bob to xyz")?;
    restart(node, &[]).await?;
    await_reconcile(node).await?;
    is_well(node, &pod, &result).context("the pod lost its network when the link prefix changed back to bob")?;
    end(node, vec![pod], &[]).await
}

pub async fn four_letters(node: &mut SingleNode) -> Result<()> {
    restart(node, &["--veth-prefix=wxyz".to_owned()]).await?;
    let pod = node.sandbox()?;
    node.add(&pod)?;
    let link = link_of(node, &pod)?;
    ensure!(link.starts_with("wxyz"), "the link's name {link} does not begin with the prefix wxyz");
    end(node, vec![pod], &[]).await?;
    restart(node, &[]).await
}

pub async fn renamed(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    let link = link_of(node, &pod)?;
    node.namespace.ip(&format!("link set {link} down\nlink set {link} name other0\nlink set other0 up\n"))?;
    await_reconcile(node).await?;
    wait_until("the agent has restored the link's name and the pod's routes", WAIT_TIMEOUT, || async {
        let (name, routes) = (link_of(node, &pod)?, routes(node, &pod)?);
        let right = name == link && routes.len() == 2;
        Ok(check(right, || format!("the link is named {name} instead of {link}, and the routes are {routes:?}")))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))?;
    is_well(node, &pod, &result)?;
    end(node, vec![pod], &[]).await
}

pub async fn alias_cleared(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    let link = link_of(node, &pod)?;
    node.namespace.ip(&format!("link set {link} alias \"\"\n"))?;
    await_reconcile(node).await?;
    let links = ip_json(&node.namespace, "link show")?;
    let there = links.as_array().into_iter().flatten().any(|one| one.get("ifname").is_some_and(|name| *name == *link));
    ensure!(
        there,
        "the agent deleted the link {link} of a running pod; the end of its log:\n{}",
        node.agent_log_tail()
    );
    wait_until("the agent has restored the link's alias", WAIT_TIMEOUT, || async {
        let name = link_of(node, &pod)?;
        Ok(check(name == link, || name.clone()))
    })
    .await?;
    is_well(node, &pod, &result)?;
    end(node, vec![pod], &[]).await
}
