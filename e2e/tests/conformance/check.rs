//! CHECK reports each difference between the pod's network and the result of ADD.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, wait_until};
use serde_json::Value;

/// The CNI error code for a container that was never added.
const CONTAINER_UNKNOWN: u64 = 3;
/// The CNI error code of a CHECK that found a difference.
const CHECK_FAILED: u64 = 101;

pub async fn succeeds(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    ensure!(node.call(&pod.check(&result))?.ok()?.is_null(), "CHECK must print nothing");
    node.del(&pod)
}

/// Calls ADD for a pod, and lets `damage` change the pod's network. CHECK must then fail with the text that
/// `damage` returns.
fn broken(node: &SingleNode, damage: impl Fn(&Sandbox, &Value) -> Result<String>) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    let sentence = damage(&pod, &result)?;
    let error = node.call(&pod.check(&result))?.error()?;
    ensure!(
        error.code == CHECK_FAILED && error.text.contains(&sentence),
        "the error of CHECK does not contain {sentence:?}: {error:?}"
    );
    node.del(&pod)
}

/// The IPv4 or IPv6 address in the result of ADD, without the prefix length.
fn address_of(result: &Value, family: usize) -> Result<&str> {
    let address = result["ips"][family]["address"].as_str().context("no address")?;
    Ok(address.split('/').next().unwrap_or(address))
}

pub async fn names_a_link(node: &mut SingleNode) -> Result<()> {
    for (command, is) in [("link del eth0", "missing"), ("link set eth0 down", "down")] {
        broken(node, |pod, _| {
            pod.namespace.ip(command)?;
            Ok(format!("in the container: link eth0 is {is}"))
        })?;
    }
    Ok(())
}

pub async fn names_an_address(node: &mut SingleNode) -> Result<()> {
    for family in [0, 1] {
        broken(node, |pod, result| {
            let address = address_of(result, family)?;
            pod.namespace
                .ip(&format!("addr del {} dev eth0", result["ips"][family]["address"].as_str().unwrap_or_default()))?;
            Ok(format!("in the container: address {address} on eth0 is missing"))
        })?;
    }
    Ok(())
}

pub async fn names_a_route(node: &mut SingleNode) -> Result<()> {
    for (gateway, to) in [("169.254.1.1", "0.0.0.0/0"), ("fe80::1 dev eth0", "::/0")] {
        let via = gateway.split(' ').next().unwrap_or_default();
        broken(node, |pod, _| {
            pod.namespace.ip(&format!("route del default via {gateway}"))?;
            Ok(format!("in the container: route {to} via {via} "))
        })?;
    }
    Ok(())
}

pub async fn names_a_host_route(node: &mut SingleNode) -> Result<()> {
    let place = node.namespace.clone();
    let sentence = |address: &str| format!("on the node: route {address}/32 over link ");
    named_or_repaired(node, &sentence, &|address| place.ip(&format!("route del {address} table 116"))).await
}

pub async fn names_a_rule(node: &mut SingleNode) -> Result<()> {
    let place = node.namespace.clone();
    let sentence = |_: &str| "on the node: rule 2000: from all lookup 116 (IPv4) is missing".to_owned();
    named_or_repaired(node, &sentence, &|_| place.ip("rule del priority 2000")).await
}

/// Damages the node's network twenty times and calls CHECK each time. The agent repairs the damage within moments, so a
/// single CHECK may come too late. At least one of the twenty CHECKs must report the damage.
async fn named_or_repaired(
    node: &SingleNode,
    sentence: &dyn Fn(&str) -> String,
    damage: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    let address = address_of(&result, 0)?;
    let sentence = sentence(address);
    let mut named = 0;
    for _ in 0..20 {
        if damage(address).is_ok() {
            let answer = node.call(&pod.check(&result))?;
            if answer.exit != 0 {
                let error = answer.error()?;
                ensure!(
                    error.code == CHECK_FAILED && error.text.contains(&sentence),
                    "the error of CHECK does not contain {sentence:?}: {error:?}"
                );
                named += 1;
            }
        }
    }
    ensure!(named > 0, "CHECK never reported {sentence:?} in twenty attempts");
    wait_until("CHECK succeeds again after the repair", WAIT_TIMEOUT, || async {
        node.call(&pod.check(&result))?.ok()?;
        Ok(Poll::Ready(()))
    })
    .await?;
    node.del(&pod)
}

pub async fn of_a_stranger(node: &mut SingleNode) -> Result<()> {
    let (pod, other) = (node.sandbox()?, node.sandbox()?);
    let result = node.add(&pod)?;
    let error = node.call(&other.check(&result))?.error()?;
    ensure!(
        error.code == CONTAINER_UNKNOWN && error.text.contains("the agent of node n1 does not know attachment"),
        "{error:?}"
    );
    node.del(&pod)
}
