//! If the runtime sends no DEL, the agent frees an attachment when its network namespace is gone, and not earlier.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::Namespace;
use bobbin_e2e::single_node::{Call, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{CONVERGENCE_TIMEOUT, await_two_stale_checks, end, has_assignment, link_of};

/// Waits until no assignment names this container.
async fn freed(node: &SingleNode, id: &str) -> Result<()> {
    wait_until(&format!("no assignment names the container {id}"), CONVERGENCE_TIMEOUT, || async {
        let left = node.assignments().await?.iter().filter(|one| one.spec.container_id == id).count();
        Ok(check(left == 0, || {
            format!("{left} assignments name the container; the end of the agent's log:\n{}", node.agent_log_tail())
        }))
    })
    .await
}

async fn have_assignments(node: &SingleNode, ids: &[&str]) -> Result<()> {
    node.await_assignments(ids, CONVERGENCE_TIMEOUT).await
}

pub async fn across_restart(node: &mut SingleNode) -> Result<()> {
    let (gone, broken) = (node.sandbox()?, node.kube_pod("default", "restart-broken", None).await?);
    node.add(&gone)?;
    // Add a second interface in the same network namespace. The kernel gave the namespace an ID at the first ADD, so
    // the second ADD uses an existing ID.
    let second = Call::of("ADD", &gone.container_id, "net1", Some(&gone.netns));
    node.call(&second)?.ok()?;
    node.add(&broken)?;
    let id = gone.container_id.clone();
    have_assignments(node, &[&id, &id, &broken.container_id]).await?;
    let link = link_of(node, &broken)?;
    node.kill_agent();
    drop(gone);
    node.namespace.ip(&format!("link del {link}"))?;
    node.start_agent().await?;
    freed(node, &id).await?;
    await_two_stale_checks(node).await?;
    has_assignment(node, &broken).await.context("a pod that lost only its link must keep its assignment")?;
    wait_until("a Warning event on the pod says that the pod has lost its interface", WAIT_TIMEOUT, || async {
        let told = node.pod_warnings("default", "restart-broken").await?;
        Ok(check(told.iter().any(|one| one.contains("has lost its interface")), || format!("{told:?}")))
    })
    .await?;
    end(node, vec![broken], &["restart-broken"]).await
}

pub async fn moved(node: &mut SingleNode) -> Result<()> {
    let pod = node.kube_pod("default", "moved", None).await?;
    node.add(&pod)?;
    let id = pod.container_id.clone();
    have_assignments(node, &[&id]).await?;
    let elsewhere = Namespace::make()?;
    pod.namespace.ip(&format!("link set eth0 netns {}\n", elsewhere.path().display()))?;
    let del = pod.call("DEL");
    drop(pod);
    await_two_stale_checks(node).await?;
    let there = node.assignments().await?.iter().any(|one| one.spec.container_id == id);
    ensure!(there, "the agent freed the address, although eth0 still exists in another namespace");
    wait_until("a Warning event on the pod says that another program moved its interface", WAIT_TIMEOUT, || async {
        let told = node.pod_warnings("default", "moved").await?;
        Ok(check(told.iter().any(|one| one.contains("moved")), || format!("{told:?}")))
    })
    .await?;
    // Remove the namespace that now contains the interface. The kernel then deletes the interface too.
    drop(elsewhere);
    freed(node, &id).await?;
    node.call(&del)?.ok()?;
    end(node, Vec::new(), &["moved"]).await
}

pub async fn reused_id(node: &mut SingleNode) -> Result<()> {
    let mut ended = Vec::new();
    let mut alive: Vec<(Sandbox, serde_json::Value)> = Vec::new();
    for _ in 0..4 {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        ended.push(pod.container_id.clone());
        drop(pod);
        // Wait until the kernel has removed the namespace. The next namespace then gets the ID of the removed
        // namespace.
        let alias = format!("bobbin:{}/eth0", ended.last().context("the list of container IDs is empty")?);
        wait_until("the kernel has removed the link with its network namespace", WAIT_TIMEOUT, || async {
            Ok(check(!node.attachments()?.contains_key(&alias), || "the link exists".to_owned()))
        })
        .await?;
        let pod = node.sandbox()?;
        let result = node.add(&pod)?;
        alive.push((pod, result));
    }
    for id in &ended {
        freed(node, id).await?;
    }
    for (pod, result) in &alive {
        has_assignment(node, pod).await?;
        node.call(&pod.check(result))?.ok()?;
    }
    end(node, alive.into_iter().map(|(pod, _)| pod).collect(), &[]).await
}
