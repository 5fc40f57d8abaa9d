//! Hands on the host's end of a running pod's link: deleted, renamed, without its alias, under another prefix. The pod keeps its address.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, PATIENCE, Pod, ip_json};
use bobbin_e2e::until::{so, until};
use serde_json::Value;

use super::{addresses, compared, end, is_recorded, link_of, looked_twice, probe, restart, small_pool};

/// A broken pod is told of within 2 s; the rest is for the event's way and a busy machine.
const TOLD: Duration = Duration::from_secs(6);

pub async fn deleted(node: &mut LoneNode) -> Result<()> {
    small_pool(node, "broken", "10.80.0.0/31", 1).await?;
    let broken = node.kube_pod("default", "broken-0", Some("broken")).await?;
    let held = addresses(&node.add(&broken)?).into_iter().next().context("an address")?;
    let other = node.kube_pod("default", "broken-1", Some("broken")).await?;
    node.add(&other)?;
    is_recorded_soon(node, &broken).await?;
    let link = link_of(node, &broken)?;
    node.namespace.ip(&format!("link del {link}"))?;
    let sentence =
        format!("pod default/broken-0 ({held}) has lost its interface {link} and has no network; delete the pod");
    let told = until("a Warning on the pod says that its interface is lost", TOLD, || async {
        let warnings = node.pod_warnings("default", "broken-0").await?;
        Ok(so(warnings.iter().any(|warning| warning.contains(&sentence)), || format!("{warnings:?}")))
    })
    .await;
    looked_twice(node).await?;
    looked_twice(node).await?;
    let next = node.kube_pod("default", "broken-2", Some("broken")).await?;
    let answer = node.call(&next.call("ADD"))?;
    ensure!(
        answer.exit != 0,
        "two running pods have one address: {held} is in the status of broken-0, and broken-2 got {}",
        answer.stdout.trim()
    );
    let error = answer.error()?;
    ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
    is_recorded(node, &broken).await?;
    told?;
    let gauge = probe::metric(node, "bobbin_agent_broken_attachments")?;
    ensure!((gauge - 1.0).abs() < f64::EPSILON, "bobbin_agent_broken_attachments is {gauge}, not 1");
    end(node, vec![broken, other, next], &["broken-0", "broken-1", "broken-2"]).await
}

async fn is_recorded_soon(node: &LoneNode, pod: &Pod) -> Result<()> {
    until("the pod has its record", PATIENCE, || async {
        is_recorded(node, pod).await?;
        Ok(so(true, String::new))
    })
    .await
}

/// The routes of a pod's addresses in table 116, through any link.
fn routes(node: &LoneNode, pod: &Pod) -> Result<Vec<(String, String)>> {
    let own: Vec<String> = pod.addresses()?.iter().map(ToString::to_string).collect();
    Ok(node.table(116)?.into_iter().filter(|(dst, _)| own.contains(dst)).collect())
}

/// The pod's two addresses lead to its link, and CHECK finds nothing wrong.
fn is_well(node: &LoneNode, pod: &Pod, result: &Value) -> Result<()> {
    let routes = routes(node, pod)?;
    ensure!(routes.len() == 2, "of the running pod's two routes there are {routes:?}\n{}", node.agent_log_tail());
    node.call(&pod.check(result))?.ok().context("CHECK of a running pod")?;
    Ok(())
}

pub async fn prefix_changed(node: &mut LoneNode) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    restart(node, &["--veth-prefix=xyz".to_owned()]).await?;
    compared(node).await?;
    is_well(node, &pod, &result).context("after the prefix changed from bob to xyz")?;
    restart(node, &[]).await?;
    compared(node).await?;
    is_well(node, &pod, &result).context("after the prefix changed back")?;
    end(node, vec![pod], &[]).await
}

pub async fn four_letters(node: &mut LoneNode) -> Result<()> {
    restart(node, &["--veth-prefix=wxyz".to_owned()]).await?;
    let pod = node.pod()?;
    node.add(&pod)?;
    let link = link_of(node, &pod)?;
    ensure!(link.starts_with("wxyz"), "the prefix is wxyz, and the link is called {link}");
    end(node, vec![pod], &[]).await?;
    restart(node, &[]).await
}

pub async fn renamed(node: &mut LoneNode) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    let link = link_of(node, &pod)?;
    node.namespace.ip(&format!("link set {link} down\nlink set {link} name other0\nlink set other0 up\n"))?;
    compared(node).await?;
    until("the link has its name back, and the routes are there", PATIENCE, || async {
        let (name, routes) = (link_of(node, &pod)?, routes(node, &pod)?);
        let right = name == link && routes.len() == 2;
        Ok(so(right, || format!("the link {name}, which was {link}; routes {routes:?}")))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))?;
    is_well(node, &pod, &result)?;
    end(node, vec![pod], &[]).await
}

pub async fn alias_cleared(node: &mut LoneNode) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    let link = link_of(node, &pod)?;
    node.namespace.ip(&format!("link set {link} alias \"\"\n"))?;
    compared(node).await?;
    let links = ip_json(&node.namespace, "link show")?;
    let there = links.as_array().into_iter().flatten().any(|one| one.get("ifname").is_some_and(|name| *name == *link));
    ensure!(there, "the link {link} of a running pod was deleted; the agent's log:\n{}", node.agent_log_tail());
    until("the link has its alias back", PATIENCE, || async {
        let name = link_of(node, &pod)?;
        Ok(so(name == link, || name.clone()))
    })
    .await?;
    is_well(node, &pod, &result)?;
    end(node, vec![pod], &[]).await
}
