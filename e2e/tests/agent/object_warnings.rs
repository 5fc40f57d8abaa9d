//! Tests settings of pods and namespaces that Bobbin ignores or can't follow. An event on the pod or namespace names
//! each setting.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::Value;

/// The CNI error code of an ADD whose pool can't serve it.
const POOL_REFUSED: u64 = 102;
/// The annotation that names a pool.
const POOL: &str = "bobbin.dev/pool";

/// The messages of the Warning events with this reason about an object.
async fn notes(node: &SingleNode, kind: &str, name: &str, reason: &str) -> Result<Vec<String>> {
    let events: Api<Event> = Api::all(node.client.clone());
    let all = events.list(&ListParams::default().fields(&format!("reason={reason}"))).await?.items;
    let about = |event: &Event| {
        let object = event.regarding.as_ref();
        event.type_.as_deref() == Some("Warning")
            && object.is_some_and(|one| one.kind.as_deref() == Some(kind) && one.name.as_deref() == Some(name))
    };
    Ok(all.into_iter().filter(about).filter_map(|event| event.note).collect())
}

/// Waits until a Warning event about the object has this reason and contains each of the texts.
async fn warned(node: &SingleNode, kind: &str, name: &str, reason: &str, texts: &[&str]) -> Result<()> {
    wait_until(&format!("{kind} {name} has a Warning event with the reason {reason}"), WAIT_TIMEOUT, || async {
        let notes = notes(node, kind, name, reason).await?;
        let named = notes.iter().any(|note| texts.iter().all(|text| note.contains(text)));
        Ok(check(named, || format!("no event message contains all of {texts:?}: {notes:?}")))
    })
    .await
}

/// Calls ADD and DEL for a pod with these annotations. The ADD must succeed.
async fn run_pod(node: &SingleNode, namespace: &str, name: &str, annotations: &[(&str, &str)]) -> Result<()> {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let pod = node.annotated_pod(namespace, name, &annotations).await?;
    node.add(&pod)?;
    node.del(&pod)?;
    node.delete_kube_pod(namespace, name).await
}

pub async fn unknown_annotations(node: &mut SingleNode) -> Result<()> {
    let annotations = [("bobbin.dev/pol", "gold"), ("bobbin.dev/ipv4", "10.64.0.9"), ("example.com/pool", "gold")];
    node.make_annotated_namespace("misspelt", &[("bobbin.dev/Pool", "gold")].into_iter().collect()).await?;
    run_pod(node, "misspelt", "misspelt-pod", &annotations).await?;
    let known = "Bobbin knows only bobbin.dev/pool";
    let keys = ["bobbin.dev/pol", "bobbin.dev/ipv4"];
    warned(node, "Pod", "misspelt-pod", "UnknownAnnotation", &[keys[0], keys[1], known]).await?;
    warned(node, "Namespace", "misspelt", "UnknownAnnotation", &["bobbin.dev/Pool", known]).await?;
    run_pod(node, "default", "spelt-right", &[(POOL, "default"), ("example.com/pool", "gold")]).await?;
    let others = notes(node, "Pod", "misspelt-pod", "UnknownAnnotation").await?;
    ensure!(!others.iter().any(|note| note.contains("example.com")), "{others:?}");
    // The agent publishes events one after another. If it wrongly published an event about the pod `spelt-right`, that
    // event would appear before the event about this pod.
    run_pod(node, "default", "misspelt-later", &[("bobbin.dev/pools", "gold")]).await?;
    warned(node, "Pod", "misspelt-later", "UnknownAnnotation", &["bobbin.dev/pools"]).await?;
    let right = notes(node, "Pod", "spelt-right", "UnknownAnnotation").await?;
    ensure!(right.is_empty(), "a pod without an unknown annotation has the Warning events {right:?}");
    Ok(())
}

pub async fn bad_pool_names(node: &mut SingleNode) -> Result<()> {
    node.make_annotated_namespace("unnamed", &[(POOL, "")].into_iter().collect()).await?;
    run_pod(node, "unnamed", "unnamed-pod", &[(POOL, "")]).await?;
    let remedy = "Name a pool in the annotation, or remove the annotation";
    warned(node, "Pod", "unnamed-pod", "EmptyPoolName", &[POOL, "is empty", remedy]).await?;
    warned(node, "Namespace", "unnamed", "EmptyPoolName", &[POOL, "is empty", remedy]).await?;

    let (invalid, of_a_name) = ("is not a valid pool name", "lower-case letters, digits and '-'");
    for (number, name) in ["Gold", "gold ", "pools/gold", "gold.example", "-gold", &"g".repeat(64)].iter().enumerate() {
        let pod_name = format!("malformed-{number}");
        let pod = node.kube_pod("default", &pod_name, Some(name)).await?;
        let error = node.call(&pod.call("ADD"))?.error()?;
        let complete = error.text.contains(invalid) && error.text.contains(of_a_name);
        ensure!(error.code == POOL_REFUSED && complete && !error.text.contains("create"), "{name:?}: {error:?}");
        warned(node, "Pod", &pod_name, "FailedAllocateAddress", &[&format!("{name:?}"), invalid, of_a_name]).await?;
        node.del(&pod)?;
        node.delete_kube_pod("default", &pod_name).await?;
    }
    node.make_namespace("malformed", Some("Gold")).await?;
    let pod = node.kube_pod("malformed", "of-malformed", None).await?;
    let error = node.call(&pod.call("ADD"))?.error()?;
    ensure!(error.text.contains("the namespace's annotation") && error.text.contains(invalid), "{error:?}");
    warned(node, "Namespace", "malformed", "InvalidPoolName", &["\"Gold\"", invalid, of_a_name]).await?;
    node.del(&pod)?;
    node.delete_kube_pod("malformed", "of-malformed").await?;
    Ok(())
}

/// Calls ADD and DEL with cnitool. Like a container runtime, cnitool passes `portMappings` to the plugins that declare
/// this capability.
async fn run_with_port(node: &SingleNode, name: &str) -> Result<()> {
    let pod = node.kube_pod("default", name, None).await?;
    let args = pod.args.clone().unwrap_or_default();
    // containerd spells the keys of a port mapping like this.
    let ports = r#"{"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}"#;
    let environment = [("CNI_ARGS", args.as_str()), ("CAP_ARGS", ports)];
    let result: Value = node.cnitool_with("add", &pod.netns, None, &environment)?.ok()?;
    ensure!(!super::addresses(&result).is_empty(), "{result}");
    node.cnitool_with("del", &pod.netns, None, &environment)?.ok()?;
    node.delete_kube_pod("default", name).await
}

pub async fn host_port(node: &mut SingleNode) -> Result<()> {
    run_with_port(node, "port-ignored").await?;
    let texts = ["hostPort 8080/tcp", "cni.chained", "portmap"];
    warned(node, "Pod", "port-ignored", "HostPortIgnored", &texts).await?;
    let portmap = node.path("cni-bin").join("portmap");
    std::fs::copy(node.programs.path("portmap")?, &portmap)?;
    chain(node, &[r#"--chained=[{"type":"portmap","capabilities":{"portMappings":true}}]"#], true).await?;
    run_with_port(node, "port-served").await?;
    // The agent publishes events one after another. If it wrongly published an event about the pod `port-served`, that
    // event would appear before the event about this pod.
    run_pod(node, "default", "after-port", &[("bobbin.dev/pools", "gold")]).await?;
    warned(node, "Pod", "after-port", "UnknownAnnotation", &["bobbin.dev/pools"]).await?;
    let served = notes(node, "Pod", "port-served", "HostPortIgnored").await?;
    ensure!(served.is_empty(), "portmap serves the port, but the pod has the Warning events {served:?}");
    chain(node, &[], false).await?;
    std::fs::remove_file(portmap)?;
    Ok(())
}

/// Restarts the agent with these flags. If `has_portmap` is true, waits until the CNI configuration has the plugin
/// portmap. Otherwise waits until the plugin is not in the configuration.
async fn chain(node: &mut SingleNode, flags: &[&str], has_portmap: bool) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(flags);
    node.start_agent().await?;
    wait_until(
        &format!("the CNI configuration has the plugin portmap (wanted: {has_portmap})"),
        WAIT_TIMEOUT,
        || async {
            let text = std::fs::read_to_string(node.path("cni-conf").join("10-bobbin.conflist"))?;
            Ok(check(text.contains("portmap\"") == has_portmap, || text.clone()))
        },
    )
    .await
}
