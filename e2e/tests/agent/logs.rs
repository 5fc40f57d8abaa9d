//! Tests the log: one line for each ADD and DEL, and a log level that follows the contents of a file. Also tests
//! the form of events.

use std::fs;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use bobbin_messages::event::{agent, operator};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::addresses;

/// The largest note that the API server accepts, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// The JSON lines about the calls of a container, in their order.
fn lines_of(node: &SingleNode, container: &str) -> Vec<Value> {
    let log = node.agent_log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["container"] == *container && line.get("took_ms").is_some()).collect()
}

pub async fn one_line(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(&["--log-format=json"]);
    node.start_agent().await?;
    let pod = node.kube_pod("default", "told", None).await?;
    let result = node.add(&pod)?;
    node.del(&pod)?;
    let refused = node.kube_pod("default", "told-why", Some("no-such-pool")).await?;
    let error = node.call(&refused.call("ADD"))?.error()?;
    node.del(&refused)?;
    let lines = lines_of(node, &pod.container_id);
    let [add, del] = lines.as_slice() else { anyhow::bail!("an ADD and a DEL must cause two lines: {lines:#?}") };
    let host_if = result["interfaces"][0]["name"].as_str().context("the result names no interface")?;
    for (line, verb) in [(add, "ADD"), (del, "DEL")] {
        let expected = json!({
            "level": "INFO", "verb": verb, "namespace": "default", "pod": "told", "ifname": "eth0",
            "pool": "default", "code": 0, "host_if": host_if,
        });
        for (field, value) in expected.as_object().into_iter().flatten() {
            ensure!(line[field] == *value, "{field} must be {value}: {line:#}");
        }
        let named = line["addresses"].as_str().unwrap_or_default();
        ensure!(addresses(&result).iter().all(|address| named.contains(address.as_str())), "{line:#}");
        let (uid, block) = (line["uid"].as_str().unwrap_or_default(), line["block"].as_str().unwrap_or_default());
        ensure!(!uid.is_empty() && block.starts_with("default-"), "{line:#}");
    }
    let stages = ["lock_ms", "pool_ms", "blocks_ms", "address_ms", "checkpoint_ms", "wiring_ms", "assignment_ms"];
    let took = |line: &Value, field: &str| line[field].as_f64().with_context(|| format!("{field}: {line:#}"));
    for field in stages {
        ensure!(took(add, field)? <= took(add, "took_ms")?, "{add:#}");
    }
    ensure!(took(add, "wiring_ms")? > 0.0 && took(del, "removal_ms")? > 0.0, "{add:#} {del:#}");
    let failed = lines_of(node, &refused.container_id);
    let [failed, _] = failed.as_slice() else { anyhow::bail!("{failed:#?}") };
    ensure!(
        failed["level"] == "WARN" && failed["code"] == error.code && failed["message"] == error.text.as_str(),
        "{failed:#}"
    );
    node.delete_kube_pod("default", "told").await?;
    node.delete_kube_pod("default", "told-why").await?;
    node.kill_agent();
    node.set_agent_flags(&[]);
    node.start_agent().await
}

async fn logged(log: impl Fn() -> String, text: &str) -> Result<()> {
    wait_until(&format!("the log contains {text:?}"), WAIT_TIMEOUT, || async {
        Ok(check(log().contains(text), || "the log does not contain the text".to_owned()))
    })
    .await
}

pub async fn level_follows_file(node: &mut SingleNode) -> Result<()> {
    let directory = node.path("log-level");
    fs::create_dir_all(&directory)?;
    let write = |name: &str, text: &str| fs::write(directory.join(name), text);
    let flag = format!("--log-level-dir={}", directory.display());
    node.kill_agent();
    node.set_agent_flags(&["--log-level=warn", &flag]);
    node.start_agent().await?;
    let text = "the agent selected the pool of the pod";
    let before = node.agent_log().matches(text).count();
    write("agent", "info")?;
    logged(|| node.agent_log(), "the log level changed from warn to info").await?;
    // The level in this node's own file takes precedence over the level in the file for all agents.
    write("agent.n1", "debug")?;
    logged(|| node.agent_log(), "the log level changes from info to debug").await?;
    let pod = node.sandbox()?;
    node.add(&pod)?;
    ensure!(node.agent_log().matches(text).count() == before + 1, "the agent wrote no line of level debug");
    write("agent.n1", "loud")?;
    logged(|| node.agent_log(), "unknown log level \"loud\"").await?;
    fs::remove_file(directory.join("agent.n1"))?;
    logged(|| node.agent_log(), "the log level changes from debug to info").await?;
    node.del(&pod)?;
    node.restart_operator(&[&flag])?;
    let operator_log = || fs::read_to_string(node.path("operator.log")).unwrap_or_default();
    logged(operator_log, "the operator has started").await?;
    write("operator", "debug")?;
    logged(operator_log, "the log level changes from info to debug").await?;
    node.restart_operator(&[])?;
    node.kill_agent();
    node.set_agent_flags(&[]);
    node.start_agent().await
}

pub async fn events(node: &mut SingleNode) -> Result<()> {
    let annotations = [("bobbin.dev/pol", "gold")].into_iter().collect();
    let pod = node.annotated_pod("default", "long-note", &annotations).await?;
    node.add(&pod)?;
    node.del(&pod)?;
    let pools = json!({"subnets": [{"ipv4": "10.77.0.0/30"}], "blockSizeBits": 1, "reserved": ["10.99.0.0/24"]});
    node.apply_pool("misspelt", pools).await?;
    // The operator refuses many subnets. The note of one event is too short for all refusals together.
    node.apply_pool("earlier", json!({"subnets": [{"ipv4": "10.78.0.0/16"}]})).await?;
    let refused: Vec<Value> = (0..20).map(|number| json!({"ipv4": format!("10.78.{number}.0/24")})).collect();
    node.apply_pool_only("later", json!({"subnets": refused})).await?;
    let api: Api<Event> = Api::all(node.client.clone());
    for (reason, controller, instance, advice) in [
        (agent::UNKNOWN_ANNOTATION.reason, "bobbin.dev/agent", "n1", "Then create the pod again"),
        (operator::RESERVED_OUTSIDE.reason, "bobbin.dev/operator", "operator-1", "Correct or remove these entries"),
        (operator::POOL_OVERLAP.reason, "bobbin.dev/operator", "operator-1", "or delete pool \"earlier\"; and 14 more"),
    ] {
        wait_until(&format!("an event has the reason {reason}, its reporter and its advice"), WAIT_TIMEOUT, || async {
            let all = api.list(&ListParams::default()).await?.items;
            let is_it = |event: &Event| {
                let text = event.note.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some(reason)
                    && event.reporting_controller.as_deref() == Some(controller)
                    && event.reporting_instance.as_deref() == Some(instance)
                    && text.len() <= MAX_NOTE_BYTES
                    && text.ends_with(advice)
            };
            Ok(check(all.iter().any(is_it), || format!("{all:#?}")))
        })
        .await?;
    }
    let known: Vec<&str> = agent::ALL.iter().chain(operator::ALL).map(|event| event.reason).collect();
    for event in api.list(&ListParams::default()).await?.items {
        let controller = event.reporting_controller.unwrap_or_default();
        let reason = event.reason.unwrap_or_default();
        ensure!(
            !controller.starts_with("bobbin") || known.contains(&reason.as_str()),
            "the event {reason} of {controller} is not in the catalog"
        );
    }
    node.delete_kube_pod("default", "long-note").await
}
