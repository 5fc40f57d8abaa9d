//! CHECK finds what is not as ADD left it, and names it.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, Pod};
use serde_json::Value;

pub async fn succeeds(node: &mut LoneNode) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    ensure!(node.call(&pod.check(&result))?.ok()?.is_null(), "CHECK printed something");
    node.del(&pod)
}

/// Adds a pod, breaks something of it, and expects CHECK to say one of the words.
fn broken(node: &LoneNode, words: &[&str], spoil: impl Fn(&Pod, &Value) -> Result<()>) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    spoil(&pod, &result)?;
    let error = node.call(&pod.check(&result))?.error()?;
    let text = error.text.to_lowercase();
    ensure!(words.iter().any(|word| text.contains(word)), "none of {words:?} is in {error:?}");
    node.del(&pod)
}

pub async fn names_a_link(node: &mut LoneNode) -> Result<()> {
    broken(node, &["eth0", "link"], |pod, _| pod.namespace.ip("link del eth0"))?;
    broken(node, &["eth0", "link"], |pod, _| pod.namespace.ip("link set eth0 down"))
}

pub async fn names_an_address(node: &mut LoneNode) -> Result<()> {
    for family in [0, 1] {
        broken(node, &["address"], |pod, result| {
            let address = result["ips"][family]["address"].as_str().context("no address")?;
            pod.namespace.ip(&format!("addr del {address} dev eth0"))
        })?;
    }
    Ok(())
}

pub async fn names_a_route(node: &mut LoneNode) -> Result<()> {
    broken(node, &["route"], |pod, _| pod.namespace.ip("route del default via 169.254.1.1"))?;
    broken(node, &["route"], |pod, _| pod.namespace.ip("route del default via fe80::1 dev eth0"))
}

pub async fn names_a_host_route(node: &mut LoneNode) -> Result<()> {
    let place = node.namespace.clone();
    named_or_repaired(node, "route", &|_, address| place.ip(&format!("route del {address} table 116")))
}

pub async fn names_a_rule(node: &mut LoneNode) -> Result<()> {
    let place = node.namespace.clone();
    named_or_repaired(node, "rule", &|_, _| place.ip("rule del priority 2000"))
}

/// The agent repairs what is the node's within moments of the kernel's notice: CHECK may come first or find it mended, but in
/// twenty tries it comes first at least once, and all is mended at the end.
fn named_or_repaired(node: &LoneNode, word: &str, spoil: &dyn Fn(&Pod, &str) -> Result<()>) -> Result<()> {
    let pod = node.pod()?;
    let result = node.add(&pod)?;
    let address = result["ips"][0]["address"].as_str().context("no address")?.to_owned();
    let mut named = 0;
    for _ in 0..20 {
        if spoil(&pod, &address).is_ok() {
            let answer = node.call(&pod.check(&result))?;
            if answer.exit != 0 {
                let error = answer.error()?;
                ensure!(error.text.to_lowercase().contains(word), "{error:?} does not name a {word}");
                named += 1;
            }
        }
    }
    ensure!(named > 0, "CHECK never named the missing {word}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = node.call(&pod.check(&result))?.ok() {
        ensure!(std::time::Instant::now() < deadline, "the {word} was not repaired: {error:#}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    node.del(&pod)
}

pub async fn of_a_stranger(node: &mut LoneNode) -> Result<()> {
    let (pod, other) = (node.pod()?, node.pod()?);
    let result = node.add(&pod)?;
    node.call(&other.check(&result))?.error()?;
    node.del(&pod)
}
