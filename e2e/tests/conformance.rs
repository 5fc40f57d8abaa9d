//! Tests each verb of the CNI specification with the plugin, the agent and a real API server on one node. Some calls
//! come from `cnitool`. The others look like calls of containerd.

#[path = "conformance/bad_input.rs"]
mod bad_input;
#[path = "conformance/check.rs"]
mod check;
#[path = "conformance/del.rs"]
mod del;
#[path = "conformance/gc.rs"]
mod gc;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{
    self, Call, EchoServer, FABRIC_IPV4, FABRIC_IPV6, SingleNode, SingleNodeOptions, WAIT_TIMEOUT, ip_json,
};
use serde_json::{Value, json};

/// The CNI error code of an ADD whose interface already exists in the container.
const INTERFACE_EXISTS: u64 = 100;

fn main() -> Result<ExitCode> {
    let suite = single_node::suite(SingleNodeOptions::default())?;
    let tests = vec![
        suite.test("cnitool ADD, CHECK and DEL succeed", cnitool_goes_through),
        suite.test("a result has the shape of the version that was asked for", results_by_version),
        suite.test("a repeated ADD gets the same result, also from a restarted agent", repeated_add),
        suite.test("ADD fails if the interface exists, and leaves it alone", add_into_an_existing_interface),
        suite.test("a container may have two interfaces", two_interfaces),
        suite.test("twenty containers are added and deleted at once", twenty_at_once),
        suite.test("the first packet of a pod arrives, in both families", first_packet),
        suite.test("STATUS succeeds, and VERSION lists four versions", status_and_version),
        suite.test("without an agent every call fails with code 11, and STATUS succeeds", without_an_agent),
        suite.test("a repeated DEL succeeds", del::repeated),
        suite.test("DEL succeeds when network namespace, link or prevResult are missing", del::with_something_missing),
        suite.test("DEL succeeds when the agent's checkpoint file is missing", del::without_a_checkpoint),
        suite.test("DEL of a container that was never added succeeds", del::of_a_stranger),
        suite.test("CHECK succeeds after ADD", check::succeeds),
        suite.test("CHECK names a missing link", check::names_a_link),
        suite.test("CHECK names a missing address", check::names_an_address),
        suite.test("CHECK names a missing route in the container", check::names_a_route),
        suite.test("CHECK names a missing route of the node, or finds it restored", check::names_a_host_route),
        suite.test("CHECK names a missing rule, or finds it restored", check::names_a_rule),
        suite.test("CHECK of a container that was never added fails", check::of_a_stranger),
        suite.test(
            "the second GC frees an attachment that is not listed, though its network namespace exists",
            gc::frees_the_unlisted,
        ),
        suite.test("the second GC frees an attachment that is not listed and has no link", gc::frees_what_is_gone),
        suite.test("GC of one network leaves the attachments of another", gc::leaves_other_networks),
        suite.test("a runtime that passes no pod UID gets an address of the pod's pool", without_a_uid),
        suite.test("GC without a list of attachments fails and frees nothing", gc::without_a_list),
        suite.test("malformed stdin fails with one sentence and leaves nothing behind", bad_input::stdin),
        suite.test("a malformed environment fails with one sentence and leaves nothing behind", bad_input::environment),
        suite.test("an unknown version fails with code 1 and the known ones", bad_input::version),
        suite.test(
            "a path that is missing, is no network namespace, or is the node's own is refused",
            bad_input::namespace,
        ),
    ];
    Ok(suite.run(tests))
}

/// The addresses in the CNI result of an ADD, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Checks that the container has no link and no checkpoint. Waits until it has no assignment.
async fn nothing_is_left(node: &SingleNode, container_id: &str) -> Result<()> {
    let links = node.attachments()?;
    ensure!(!links.keys().any(|alias| alias.contains(container_id)), "a link of container {container_id} still exists");
    for entry in std::fs::read_dir(node.run_dir().join("attachments"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.contains(container_id), "the checkpoint {name} still exists");
    }
    bobbin_e2e::wait::wait_until("the container has no assignment", WAIT_TIMEOUT, || async {
        let left = node.assignments().await?.into_iter().find(|one| one.spec.container_id == container_id);
        Ok(bobbin_e2e::wait::check(left.is_none(), || format!("{:?}", left.and_then(|one| one.metadata.name))))
    })
    .await
}

async fn cnitool_goes_through(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.cnitool("add", &pod.netns, None)?.ok()?;
    let mut given = addresses(&result);
    given.sort();
    let mut seen: Vec<String> = pod.addresses()?.iter().map(ToString::to_string).collect();
    seen.sort();
    ensure!(
        given == seen && given.len() == 2,
        "the result of ADD has the addresses {given:?}, but the kernel has {seen:?}"
    );
    node.cnitool("check", &pod.netns, None)?.ok()?;
    node.cnitool("status", &pod.netns, None)?.ok()?;
    node.cnitool("del", &pod.netns, None)?.ok()?;
    node.cnitool("del", &pod.netns, None)?.ok()?;
    ensure!(pod.addresses()?.is_empty(), "the container still has addresses after DEL");
    Ok(())
}

async fn results_by_version(node: &mut SingleNode) -> Result<()> {
    for (version, family, mtu) in
        [("0.3.1", true, false), ("0.4.0", true, false), ("1.0.0", false, false), ("1.1.0", false, true)]
    {
        let pod = node.sandbox()?;
        let result = node.call(&pod.call("ADD").with("cniVersion", json!(version)))?.ok()?;
        ensure!(result["cniVersion"] == version, "{result}");
        let ips = result["ips"].as_array().context("no ips")?;
        ensure!(ips.len() == 2, "{result}");
        for ip in ips {
            ensure!(ip.get("version").is_some() == family, "{version}: {ip}");
            let place = ip["interface"].as_u64().context("an address in the result names no interface")? as usize;
            ensure!(result["interfaces"][place]["sandbox"] == json!(pod.netns), "{version}: {result}");
            ensure!(result["interfaces"][place]["name"] == "eth0", "{version}: {result}");
        }
        for interface in result["interfaces"].as_array().context("no interfaces")? {
            ensure!(interface.get("mtu").is_some() == mtu && interface["mac"].is_string(), "{version}: {interface}");
        }
        if version != "0.3.1" {
            node.call(&pod.check(&result).with("cniVersion", json!(version)))?.ok()?;
        }
        let del = pod.call("DEL").with("cniVersion", json!(version)).with("prevResult", result);
        ensure!(node.call(&del)?.ok()?.is_null(), "DEL must print nothing");
        nothing_is_left(node, &pod.container_id).await?;
    }
    Ok(())
}

async fn repeated_add(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let first = node.add(&pod)?;
    let second = node.add(&pod)?;
    ensure!(second == first, "the second ADD returned another result: {second} instead of {first}");
    node.kill_agent();
    node.start_agent().await?;
    let third = node.add(&pod)?;
    ensure!(third == first, "the ADD after a restart returned another result: {third} instead of {first}");
    node.del(&pod)?;
    nothing_is_left(node, &pod.container_id).await
}

async fn add_into_an_existing_interface(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    pod.namespace.ip("link add eth0 type veth peer name foreign\naddr add 192.0.2.1/24 dev eth0\n")?;
    let error = node.call(&pod.call("ADD"))?.error()?;
    ensure!(error.code == INTERFACE_EXISTS && error.text.contains("eth0"), "{error:?}");
    ensure!(pod.addresses()? == ["192.0.2.1".parse::<std::net::IpAddr>()?], "the failed ADD changed the foreign link");
    node.del(&pod)?;
    ensure!(pod.addresses()?.len() == 1, "DEL removed a foreign link");
    nothing_is_left(node, &pod.container_id).await
}

async fn two_interfaces(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let second = |verb| Call::of(verb, &pod.container_id, "net1", Some(&pod.netns));
    let one = addresses(&node.add(&pod)?);
    let two = addresses(&node.call(&second("ADD"))?.ok()?);
    ensure!(one.iter().all(|address| !two.contains(address)), "{one:?} {two:?}");
    node.call(&second("DEL"))?.ok()?;
    ensure!(pod.addresses()?.len() == 2, "the DEL of net1 removed addresses of eth0");
    node.del(&pod)?;
    nothing_is_left(node, &pod.container_id).await
}

async fn twenty_at_once(node: &mut SingleNode) -> Result<()> {
    let pods = (0..20).map(|_| node.sandbox()).collect::<Result<Vec<_>>>()?;
    let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("ADD")).collect())?;
    let mut given = Vec::new();
    for answer in &answers {
        given.extend(addresses(&answer.ok()?));
    }
    given.sort();
    given.dedup();
    ensure!(given.len() == 40, "twenty ADDs must get 40 different addresses, but got {}", given.len());
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
    for (answer, pod) in answers.iter().zip(&pods) {
        answer.ok()?;
        nothing_is_left(node, &pod.container_id).await?;
    }
    Ok(())
}

async fn first_packet(node: &mut SingleNode) -> Result<()> {
    for address in [FABRIC_IPV4, FABRIC_IPV6] {
        let server = EchoServer::start(node, address)?;
        for number in 0..50 {
            let pod = node.sandbox()?;
            node.add(&pod)?;
            let seen = || {
                let table = node.table(116).unwrap_or_default();
                let neighbours = ip_json(&node.namespace, "neigh show").unwrap_or_default();
                let inside = (pod.ip_json("route show"), pod.ip_json("neigh show"), pod.ip_json("-s link show eth0"));
                format!(
                    "pod {number} got no answer; table 116 has {table:?}, the neighbours are {neighbours}, the pod has {inside:?}; the end of the agent's log:\n{}",
                    node.agent_log_tail()
                )
            };
            server.ask::<2>(&pod).with_context(seen)?;
            node.del(&pod)?;
        }
    }
    Ok(())
}

async fn without_a_uid(node: &mut SingleNode) -> Result<()> {
    let pools = json!({"subnets": [{"ipv4": "10.71.0.0/28"}], "blockSizeBits": 2});
    node.apply_pool("by-name", pools).await?;
    let mut pod = node.kube_pod("default", "nameless", Some("by-name")).await?;
    let args = pod.args.take().context("the pod has no CNI_ARGS")?;
    let (without, uid) = args.split_once(";K8S_POD_UID=").context("the pod's CNI_ARGS have no UID")?;
    let result = node.call(&pod.call("ADD").args(without))?.ok()?;
    let given = addresses(&result);
    ensure!(given.len() == 1 && given[0].starts_with("10.71.0."), "{result}");
    let file = node.run_dir().join("attachments").join(format!("{}-eth0.json", pod.container_id));
    let kept: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    ensure!(kept["pod"]["uid"] == uid, "the checkpoint lacks the UID that the agent found: {kept}");
    node.delete_kube_pod("default", "nameless").await?;
    let other = node.sandbox()?;
    let error = node.call(&other.call("ADD").args(without))?.error()?;
    ensure!(error.code == 11 && error.text.contains("default/nameless"), "{error:?}");
    node.del(&pod)?;
    nothing_is_left(node, &pod.container_id).await
}

async fn status_and_version(node: &mut SingleNode) -> Result<()> {
    node.call(&Call { verb: "STATUS", ..Call::default() })?.ok()?;
    let older = Call { verb: "STATUS", ..Call::default() }.with("cniVersion", json!("1.0.0"));
    ensure!(node.call(&older)?.error()?.code == 1, "the plugin must refuse STATUS for CNI version 1.0.0");
    let version = node.call(&Call { verb: "VERSION", ..Call::default() })?.ok()?;
    ensure!(version["supportedVersions"] == json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]), "{version}");
    Ok(())
}

async fn without_an_agent(node: &mut SingleNode) -> Result<()> {
    let (pod, other) = (node.sandbox()?, node.sandbox()?);
    let result = node.add(&pod)?;
    node.kill_agent();
    let list = json!([{"containerID": pod.container_id, "ifname": "eth0"}]);
    for call in [
        other.call("ADD"),
        pod.call("DEL"),
        pod.check(&result),
        Call { verb: "GC", ..Call::default() }.with("cni.dev/valid-attachments", list),
    ] {
        let error = node.call(&call)?.error()?;
        ensure!(error.code == 11, "{} returns {error:?}", call.verb);
        let text = error.text.to_lowercase();
        ensure!(text.contains("agent") && !text.contains("not found") && !text.contains("no such file"), "{error:?}");
    }
    node.call(&Call { verb: "STATUS", ..Call::default() })?.ok()?;
    node.call(&Call { verb: "VERSION", ..Call::default() })?.ok()?;
    node.start_agent().await?;
    node.call(&pod.check(&result))?.ok()?;
    node.del(&pod)
}
