//! How the command connects to the API server: flags, errors and completion.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::{ADMIN, ControlPlane, ControlPlaneOptions};
use bobbin_e2e::single_node::{NODE, SingleNode};
use serde_json::json;

use crate::{executable, expect, kubectl_bobbin, kubectl_bobbin_with, link, printed};

pub async fn errors(node: &mut SingleNode) -> Result<()> {
    let url = node.control_plane.url();
    let forbidden = kubectl_bobbin(node, &["pools", "--as", "nobody"])?;
    for part in [
        &url,
        "User \"nobody\" cannot list resource \"addresspools\"",
        "ask an administrator for the right to list addresspools.bobbin.dev",
    ] {
        expect(&forbidden, 1, part)?;
    }
    ensure!(forbidden.err.trim().lines().count() == 1, "more than one line: {forbidden:?}");
    let refused = kubectl_bobbin(node, &["drain", "default", "--as", "nobody"])?;
    expect(&refused, 1, &url)?;

    let stranger = node.control_plane.kubeconfig_for("stranger")?;
    let unauthorized = kubectl_bobbin_with(node, &stranger, &["nodes"])?;
    expect(&unauthorized, 1, &format!("{url} does not accept the credentials of the kubeconfig (401"))?;

    // Nothing listens at port 1.
    let nobody = node.control_plane.kubeconfig_through(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), ADMIN)?;
    let unreachable = kubectl_bobbin_with(node, &nobody, &["pools"])?;
    expect(&unreachable, 1, "can't list addresspools: the connection to https://127.0.0.1:1 failed")?;
    expect(&unreachable, 1, "Connection refused")?;
    expect(&unreachable, 1, "check that the API server runs")?;

    let absent = kubectl_bobbin(node, &["pools", "--context", "absent"])?;
    expect(&absent, 1, "no context absent; choose a context with --context (the kubeconfig has bobbin)")?;
    let mut without = Command::new(executable(node)?);
    let missing = printed(without.env_remove("KUBECONFIG").env("HOME", node.path("nowhere")).arg("pools"))?;
    expect(&missing, 1, "name a file with --kubeconfig or in the variable KUBECONFIG")?;

    // A cluster without Bobbin.
    let other = ControlPlane::start(ControlPlaneOptions::default()).await?;
    for args in [&["pools"][..], &["map", "default"], &["drain", "default"]] {
        let found = kubectl_bobbin_with(node, &other.admin_kubeconfig()?, args)?;
        expect(&found, 1, &format!("{} has no resource addresspools.bobbin.dev; install Bobbin", other.url()))?;
    }
    Ok(())
}

pub async fn flags(node: &mut SingleNode) -> Result<()> {
    let masters = ["pools", "--as", "nobody", "--as-group", "other", "--as-group", "system:masters"];
    expect(&kubectl_bobbin(node, &masters)?, 0, "")?;
    expect(&kubectl_bobbin(node, &["pools", "--as-group", "system:masters"])?, 1, "add --as USER")?;
    expect(&kubectl_bobbin(node, &["pools", "--context", "bobbin", "--request-timeout", "20"])?, 0, "")?;
    expect(&kubectl_bobbin(node, &["pools", "--request-timeout", "0"])?, 0, "")?;
    node.control_plane.freeze_apiserver()?;
    let late = kubectl_bobbin(node, &["pools", "--request-timeout=500ms"]);
    node.control_plane.resume_apiserver()?;
    expect(&late?, 1, "--request-timeout")
}

pub async fn completes(node: &mut SingleNode) -> Result<()> {
    for (pool, subnet) in [("complete-a", "10.91.9.0/28"), ("complete-b", "10.91.9.16/28")] {
        let spec = json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": 2, "draining": true});
        node.apply_pool_only(pool, spec).await?;
    }
    executable(node)?;
    let plugins = link(node, "kubectl_complete-bobbin")?;
    let plugins = plugins.parent().context("no directory")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let complete = |line: &[&str]| -> Result<Vec<String>> {
        let mut kubectl = Command::new(node.programs.path("kubectl")?);
        kubectl.env("PATH", format!("{plugins}:{path}")).env("KUBECONFIG", node.control_plane.kubeconfig_for(ADMIN)?);
        let found = printed(kubectl.args(["__complete", "bobbin"]).args(line))?;
        ensure!(found.code == 0, "{line:?}: {found:?}");
        Ok(found.out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
    };
    for (line, expected) in [
        (&["po"][..], &["pools", ":4"][..]),
        (&["map", "complete-"], &["complete-a", "complete-b", ":4"]),
        (&["pools", "complete-a", "complete-"], &["complete-b", ":4"]),
        (&["nodes", NODE], &[NODE, ":4"]),
        (&["drain", "--ev"], &["--evict", ":4"]),
        (&["pools", "-o", "j"], &["json", ":4"]),
        (&["pools", "--context", "b"], &["bobbin", ":4"]),
        (&["explain", "-n", "kube-s"], &["kube-system", ":4"]),
        (&["pools", "--kubeconfig", ""], &[":0"]),
        // If the API server forbids the LIST request, the completion has no candidates and prints no error.
        (&["map", "--as", "nobody", ""], &[":4"]),
    ] {
        let found = complete(line)?;
        ensure!(found == expected, "{line:?}: {found:?}");
    }
    Ok(())
}
