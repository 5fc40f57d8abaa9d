//! Tests ADDs that wait for a Pod object or for a free address, and tests when such a wait ends.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{AGENT_USER, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{addresses, create_small_pool, end, restart};

/// The ADD timeout in the test where a DEL ends the wait.
const ADD_TIMEOUT: Duration = Duration::from_secs(30);
/// How late the API server answers. With this delay, an ADD is still waiting for its Pod object when the DEL arrives.
const RESPONSE_DELAY: Duration = Duration::from_millis(1500);
/// How many ADDs the runtime sends for the waiting pod.
const TRIES: usize = 5;

pub async fn without_uid(node: &mut SingleNode) -> Result<()> {
    create_small_pool(node, "by-name", "10.80.1.0/30", 2).await?;
    let mut pod = node.kube_pod("default", "by-name", Some("by-name")).await?;
    pod.args = Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=by-name".to_owned());
    let result = node.call(&pod.call("ADD"))?.ok().context("the ADD of a pod failed without K8S_POD_UID")?;
    let got = addresses(&result);
    ensure!(
        got.len() == 1 && got[0].starts_with("10.80.1."),
        "the pod names the pool by-name, but got the addresses {got:?}"
    );
    let uid = node.kube_pod_uid("default", "by-name").await?;
    wait_until("the assignment names the pod's UID", WAIT_TIMEOUT, || async {
        let all = node.assignments().await?;
        let assignment = all.into_iter().find(|one| one.spec.container_id == pod.container_id);
        let seen = assignment.context("no assignment")?.spec.pod_uid;
        Ok(check(seen.as_deref() == Some(&uid), || format!("the assignment names {seen:?}, not {uid}")))
    })
    .await?;
    end(node, vec![pod], &["by-name"]).await
}

/// Creates a pool of two addresses, and two pods that use both addresses.
async fn full_pool(node: &SingleNode, pool: &str, subnet: &str) -> Result<Vec<Sandbox>> {
    create_small_pool(node, pool, subnet, 1).await?;
    let mut pods = Vec::new();
    for number in 0..2 {
        let pod = node.kube_pod("default", &format!("{pool}-{number}"), Some(pool)).await?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

pub async fn del_ends_wait(node: &mut SingleNode) -> Result<()> {
    restart(node, &[format!("--add-timeout={}s", ADD_TIMEOUT.as_secs())]).await?;
    let mut pods = full_pool(node, "called-off", "10.80.2.0/31").await?;
    let mark = node.control_plane.audit().mark();
    node.proxy.set(NetworkFault::Delay(RESPONSE_DELAY));
    let pod = node.kube_pod("default", "called-off-2", Some("called-off")).await?;
    let (call, plugin) = (pod.call("ADD"), node.plugin());
    let adding = std::thread::spawn(move || plugin.call(&call));
    wait_until("the agent reads the pod from the API server", WAIT_TIMEOUT, || async {
        let asked = |entry: &bobbin_e2e::control_plane::Entry| {
            entry.user.username == AGENT_USER && entry.verb == "get" && entry.name() == "called-off-2"
        };
        let calls = node.control_plane.audit().calls(mark, asked)?;
        Ok(check(!calls.is_empty(), || "the agent has not read the pod".to_owned()))
    })
    .await?;
    let del = node.call(&pod.call("DEL"))?;
    node.proxy.set(NetworkFault::None);
    del.ok()?;
    let add = adding.join().map_err(|_| anyhow!("the thread of the ADD panicked"))??;
    // An ADD that reaches its timeout fails with another error, namely that the pool has no free address.
    let error = add.error()?;
    let by_del = error.text.contains("called DEL") || error.text.contains("wants it deleted");
    ensure!(error.code == 11 && by_del, "{error:?}");
    pods.push(pod);
    end(node, pods, &["called-off-0", "called-off-1", "called-off-2"]).await?;
    restart(node, &[]).await
}

pub async fn one_warning(node: &mut SingleNode) -> Result<()> {
    restart(node, &["--add-timeout=300ms".to_owned()]).await?;
    let mut pods = full_pool(node, "one-warning", "10.80.3.0/31").await?;
    let waits = node.kube_pod("default", "one-warning-2", Some("one-warning")).await?;
    let begun = node.agent_log().len();
    // Like kubelet, create a new sandbox for each attempt, and send a DEL after each failed ADD.
    for _ in 0..TRIES {
        let mut sandbox = node.sandbox()?;
        sandbox.args.clone_from(&waits.args);
        let error = node.call(&sandbox.call("ADD"))?.error()?;
        ensure!(error.code == 11 && error.text.contains("one-warning"), "{error:?}");
        node.del(&sandbox)?;
    }
    let lines = |from: usize| {
        let log = node.agent_log().split_off(from);
        log.lines().filter(|line| line.contains("one-warning-2")).map(str::to_owned).collect::<Vec<_>>()
    };
    let warnings: Vec<String> = lines(begun).into_iter().filter(|line| line.contains("WARN")).collect();
    ensure!(
        warnings.len() == 1,
        "{TRIES} ADDs for a waiting pod must cause one warning in the log, but caused {}: {warnings:#?}",
        warnings.len()
    );
    let ends = node.agent_log().len();
    let freed = pods.remove(0);
    node.del(&freed)?;
    node.add(&waits)?;
    // One line says that the wait has ended, and the successful ADD may log another line.
    ensure!(
        matches!(lines(ends).len(), 1 | 2),
        "the end of the wait must cause one or two log lines, but caused {:#?}",
        lines(ends)
    );
    pods.extend([freed, waits]);
    end(node, pods, &["one-warning-0", "one-warning-1", "one-warning-2"]).await?;
    restart(node, &[]).await
}
