//! Tests that earlier defects of Bobbin do not return. The tests run on a single node, for example with deleted links,
//! kept network namespaces, two agents, a busy port or a full pool.

#[path = "node_defects/deleted_pods.rs"]
mod deleted_pods;
#[path = "node_defects/drift.rs"]
mod drift;
#[path = "node_defects/first_calls.rs"]
mod first_calls;
#[path = "node_defects/foreign_routes.rs"]
mod foreign_routes;
#[path = "node_defects/health.rs"]
mod health;
#[path = "node_defects/install.rs"]
mod install;
#[path = "node_defects/kept_namespaces.rs"]
mod kept_namespaces;
#[path = "node_defects/links.rs"]
mod links;
#[path = "node_defects/metrics_endpoint.rs"]
mod metrics_endpoint;
#[path = "node_defects/metrics_page.rs"]
mod metrics_page;
#[path = "node_defects/networks.rs"]
mod networks;
#[path = "node_defects/node_network.rs"]
mod node_network;
#[path = "node_defects/run_dir.rs"]
mod run_dir;
#[path = "node_defects/stale_attachments.rs"]
mod stale_attachments;
#[path = "node_defects/status.rs"]
mod status;
#[path = "node_defects/waiting.rs"]
mod waiting;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{self, CONVERGENCE_TIMEOUT, Sandbox, SingleNode, SingleNodeOptions, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

/// The address of the agent's metrics and health endpoints, inside the node.
const METRICS: &str = "127.0.0.1:9119";

fn main() -> Result<ExitCode> {
    let metrics = format!("--metrics-address={METRICS}");
    let flags = ["--add-timeout=3s", "--stale-check-interval=500ms", &metrics];
    let suite = single_node::suite(SingleNodeOptions::with_agent_flags(flags))?;
    let tests = vec![
        suite.test(
            "thirty ADDs at once succeed as the first calls after boot, while rules are restored",
            first_calls::thirty_at_once,
        ),
        suite.test("a running pod whose host link was deleted keeps its address and gets a Warning", links::deleted),
        suite.test("running pods keep links and routes when the prefix of link names changes", links::prefix_changed),
        suite.test("a prefix of four letters is used in full", links::four_letters),
        suite.test("a renamed link keeps its routes and gets its name back", links::renamed),
        suite.test("a link whose alias was cleared is not deleted, and gets its alias back", links::alias_cleared),
        suite.test("GC for one network frees nothing of another network", networks::gc),
        suite.test("a runtime that passes no pod UID is served by the pod's name", waiting::without_uid),
        suite.test("a DEL ends the wait of its ADD at once, also before the wait has begun", waiting::del_ends_wait),
        suite.test(
            "a pod that waits for an address is logged as one warning, however often the runtime tries",
            waiting::one_warning,
        ),
        suite.test("the CNI configuration is withheld until the plugin is installed", install::withheld),
        suite.test("a plugin or CNI configuration that was removed or changed is installed again", install::put_back),
        suite.test("a second agent waits for the run directory and logs it", run_dir::second_agent),
        suite.test("the run directory of another node name is set aside", run_dir::other_name),
        suite.test("a Node that was created again keeps its pods, and its blocks get the new UID", run_dir::other_uid),
        suite.test("assignments are kept when the run directory was emptied without a reboot", run_dir::emptied),
        suite.test("an agent whose run directory is emptied keeps serving", run_dir::emptied_while_running),
        suite.test(
            "an attachment is freed after an agent restart only if its namespace is gone",
            stale_attachments::across_restart,
        ),
        suite.test(
            "a pod whose interface was moved to another network namespace keeps its address and gets a Warning",
            stale_attachments::moved,
        ),
        suite.test(
            "a network namespace that reuses the ID of a deleted one is not mistaken for it",
            stale_attachments::reused_id,
        ),
        suite.test(
            "a deleted pod is freed though its network namespace is kept, but not while the Node is not Ready",
            deleted_pods::freed,
        ),
        suite.test("a static pod keeps its address with and without its mirror pod", kept_namespaces::static_pod),
        suite.test(
            "an address whose network namespace is kept by a leaked mount or socket is held until its pod is deleted",
            kept_namespaces::kept_alive,
        ),
        suite.test("STATUS succeeds however long an agent that was ready is away", status::long_away),
        suite.test("uninstalling removes every marker file of the plugin", status::markers_forgotten),
        suite.test(
            "CNI is served while the metrics port is in use, and the port is opened when it is free",
            health::busy_port,
        ),
        suite.test("/healthz fails when a loop makes no progress", health::hung_loop),
        suite.test(
            "agent and operator expose from their start the metrics that docs/reference/metrics.md lists, and no others",
            metrics_page::are_listed,
        ),
        suite.test(
            "the metrics of CNI calls, addresses and unconfirmed assignments agree with the node, also during an outage",
            metrics_page::agree_with_the_state,
        ),
        suite.test("agent and operator refuse an unknown log format and name the known ones", health::log_format),
        suite.test(
            "rules, routes, neighbours, sysctls, links and the filter are restored, also those changed while the agent was down",
            drift::restored,
        ),
        suite.test("a route whose notice was lost in a netlink overrun is restored", drift::overrun),
        suite.test("a storm of changes in table 116 causes no busy loop and hides no lost route", drift::storm),
        suite.test(
            "a block over the node's connected subnet or next hop is not claimed until the cause is gone",
            node_network::refused_blocks,
        ),
        suite.test(
            "a node that may claim none of the first 500 free blocks claims one on the next page",
            node_network::block_on_second_page,
        ),
        suite.test("an address of a Node that joins inside a claimed block is not assigned", node_network::node_joins),
        suite.test("foreign routes in table main cause no reconcile and use no memory", foreign_routes::ignored),
    ];
    Ok(suite.run(tests))
}

/// The addresses in the CNI result of an ADD, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// The agent's flag that shortens its long waits by this factor.
fn scaled(scale: &str) -> Vec<String> {
    vec![format!("--time-scale={scale}")]
}

/// The timeout at a time scale of 0.1 for work that takes the agent at most a minute without a time scale.
fn scaled_minute() -> Duration {
    Duration::from_secs(20)
}

/// Restarts the agent with these flags. They replace default flags of the same name.
async fn restart(node: &mut SingleNode, flags: &[String]) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    node.start_agent().await
}

/// Waits until the agent has checked all attachments two more times. To notice this, the function removes a pod's
/// namespace, because the agent frees such an attachment after two checks.
async fn await_two_stale_checks(node: &SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    let id = pod.container_id.clone();
    let await_assigned = async |wanted: bool| {
        wait_until(&format!("the container {id} has an assignment (wanted: {wanted})"), CONVERGENCE_TIMEOUT, || async {
            let there = node.assignments().await?.iter().any(|one| one.spec.container_id == id);
            Ok(check(there == wanted, || format!("the container has an assignment: {there}")))
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
    };
    await_assigned(true).await?;
    drop(pod);
    await_assigned(false).await
}

/// Waits until the agent has made a whole reconcile pass. To notice this, the function removes a route of a new pod and
/// waits until the agent has restored it.
async fn await_reconcile(node: &SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let address = addresses(&node.add(&pod)?).into_iter().next().context("the result has no address")?;
    node.namespace.ip(&format!("route del {address}/32 table 116"))?;
    wait_until("the agent has restored the pod's route", WAIT_TIMEOUT, || async {
        let there = node.table(116)?.iter().any(|(dst, _)| *dst == address);
        Ok(check(there, || node.agent_log_tail()))
    })
    .await?;
    node.del(&pod)
}

/// Finds the host link of a pod's `eth0` by the link's alias, and returns its name.
fn link_of(node: &SingleNode, pod: &Sandbox) -> Result<String> {
    let alias = format!("bobbin:{}/eth0", pod.container_id);
    Ok(node.attachments()?.remove(&alias).with_context(|| format!("no link has the alias {alias}"))?.link)
}

/// Checks that a pod has an assignment.
async fn has_assignment(node: &SingleNode, pod: &Sandbox) -> Result<()> {
    let all = node.assignments().await?;
    ensure!(
        all.iter().any(|one| one.spec.container_id == pod.container_id),
        "the assignment of {} is gone; the end of the agent's log:\n{}",
        pod.args.as_deref().unwrap_or(&pod.container_id),
        node.agent_log_tail()
    );
    Ok(())
}

/// Creates a pool of a single block with 2^`bits` IPv4 addresses and no cool-down.
async fn create_small_pool(node: &SingleNode, name: &str, subnet: &str, bits: u8) -> Result<()> {
    let spec = json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": bits, "cooldownSeconds": 0});
    node.apply_pool(name, spec).await?;
    node.await_free_blocks(name).await
}

/// Calls DEL for `pods`, and deletes the pod objects with these names in the namespace `default`. Then waits until no
/// pod has a link, a checkpoint or an assignment.
async fn end(node: &SingleNode, pods: Vec<Sandbox>, names: &[&str]) -> Result<()> {
    for pod in &pods {
        node.del(pod)?;
    }
    drop(pods);
    for name in names {
        node.delete_kube_pod("default", name).await?;
    }
    node.await_empty().await
}
