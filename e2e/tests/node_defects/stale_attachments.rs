//! An attachment without a DEL is freed when its network namespace is gone, and not before.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::network::Namespace;
use bobbin_e2e::single_node::{Call, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{CONVERGENCE_TIMEOUT, await_two_stale_checks, end, has_assignment, link_of};

/// Waits until no assignment names a container.
async fn freed(node: &SingleNode, id: &str) -> Result<()> {
    wait_until(&format!("{id} is freed"), CONVERGENCE_TIMEOUT, || async {
        let left = node.assignments().await?.iter().filter(|one| one.spec.container_id == id).count();
        Ok(check(left == 0, || format!("{left} assignments; the agent's log:\n{}", node.agent_log_tail())))
    })
    .await
}

async fn have_assignments(node: &SingleNode, ids: &[&str]) -> Result<()> {
    node.await_assignments(ids, CONVERGENCE_TIMEOUT).await
}

pub async fn across_restart(node: &mut SingleNode) -> Result<()> {
    let (gone, broken) = (node.sandbox()?, node.kube_pod("default", "restart-broken", None).await?);
    node.add(&gone)?;
    // A second interface in the same namespace, for which the kernel already has an ID.
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
    has_assignment(node, &broken).await.context("its namespace exists, only its link is gone")?;
    wait_until("a Warning on the pod says that its interface is lost", WAIT_TIMEOUT, || async {
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
    ensure!(there, "the address was freed while eth0 exists in another namespace");
    wait_until("a Warning on the pod says that its interface was moved", WAIT_TIMEOUT, || async {
        let told = node.pod_warnings("default", "moved").await?;
        Ok(check(told.iter().any(|one| one.contains("moved")), || format!("{told:?}")))
    })
    .await?;
    // The interface is deleted with the namespace that it was moved to.
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
        // The kernel removes a namespace a moment after its last reference is gone. The next namespace gets its ID.
        let alias = format!("bobbin:{}/eth0", ended.last().context("one was pushed")?);
        wait_until("the link is gone with its namespace", WAIT_TIMEOUT, || async {
            Ok(check(!node.attachments()?.contains_key(&alias), || "it exists".to_owned()))
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
