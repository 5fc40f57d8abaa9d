//! CHECK finds what is not as ADD left it, and names it.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, Pod};
use serde_json::Value;

/// The code for a container that was never added.
const CONTAINER_UNKNOWN: u64 = 3;
/// The code of a CHECK that found something.
const CHECK_FAILED: u64 = 101;

pub async fn succeeds(node: &mut LoneNode) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    ensure!(node.call(&pod.check(&result))?.ok()?.is_null(), "CHECK printed something");
    node.del(&pod)
}

/// Adds a pod, breaks something of it, and expects CHECK to say so in the words that `spoil` returns.
fn broken(node: &LoneNode, spoil: impl Fn(&Pod, &Value) -> Result<String>) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    let sentence = spoil(&pod, &result)?;
    let error = node.call(&pod.check(&result))?.error()?;
    ensure!(error.code == CHECK_FAILED && error.text.contains(&sentence), "{sentence:?} is not in {error:?}");
    node.del(&pod)
}

/// The address of a family, as ADD answered it: without the length of the prefix.
fn address_of(result: &Value, family: usize) -> Result<&str> {
    let address = result["ips"][family]["address"].as_str().context("no address")?;
    Ok(address.split('/').next().unwrap_or(address))
}

pub async fn names_a_link(node: &mut LoneNode) -> Result<()> {
    for (command, is) in [("link del eth0", "missing"), ("link set eth0 down", "down")] {
        broken(node, |pod, _| {
            pod.namespace.ip(command)?;
            Ok(format!("in the container: link eth0 is {is}"))
        })?;
    }
    Ok(())
}

pub async fn names_an_address(node: &mut LoneNode) -> Result<()> {
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

pub async fn names_a_route(node: &mut LoneNode) -> Result<()> {
    for (gateway, to) in [("169.254.1.1", "0.0.0.0/0"), ("fe80::1 dev eth0", "::/0")] {
        let via = gateway.split(' ').next().unwrap_or_default();
        broken(node, |pod, _| {
            pod.namespace.ip(&format!("route del default via {gateway}"))?;
            Ok(format!("in the container: route {to} via {via} "))
        })?;
    }
    Ok(())
}

pub async fn names_a_host_route(node: &mut LoneNode) -> Result<()> {
    let place = node.namespace.clone();
    let sentence = |address: &str| format!("on the node: route {address}/32 over link ");
    named_or_repaired(node, &sentence, &|address| place.ip(&format!("route del {address} table 116")))
}

pub async fn names_a_rule(node: &mut LoneNode) -> Result<()> {
    let place = node.namespace.clone();
    let sentence = |_: &str| "on the node: rule 2000: from all lookup 116 (IPv4) is missing".to_owned();
    named_or_repaired(node, &sentence, &|_| place.ip("rule del priority 2000"))
}

/// The agent repairs what is the node's within moments of the kernel's notice: CHECK may come first or find it mended, but in
/// twenty tries it comes first at least once, and all is mended at the end.
fn named_or_repaired(
    node: &LoneNode,
    sentence: &dyn Fn(&str) -> String,
    spoil: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    let address = address_of(&result, 0)?;
    let sentence = sentence(address);
    let mut named = 0;
    for _ in 0..20 {
        if spoil(address).is_ok() {
            let answer = node.call(&pod.check(&result))?;
            if answer.exit != 0 {
                let error = answer.error()?;
                ensure!(
                    error.code == CHECK_FAILED && error.text.contains(&sentence),
                    "{sentence:?} is not in {error:?}"
                );
                named += 1;
            }
        }
    }
    ensure!(named > 0, "CHECK never said {sentence:?}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = node.call(&pod.check(&result))?.ok() {
        ensure!(std::time::Instant::now() < deadline, "{sentence:?} was not repaired: {error:#}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    node.del(&pod)
}

pub async fn of_a_stranger(node: &mut LoneNode) -> Result<()> {
    let (pod, other) = (node.pod()?, node.pod()?);
    let result = node.add(&pod)?;
    let error = node.call(&other.check(&result))?.error()?;
    ensure!(
        error.code == CONTAINER_UNKNOWN && error.text.contains("the agent of node n1 does not know attachment"),
        "{error:?}"
    );
    node.del(&pod)
}
