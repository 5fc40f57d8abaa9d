//! Tests the installed plugin and its CNI configuration. The configuration never exists without the plugin. If another
//! program changes or removes the two files, the agent restores them.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::{metrics_endpoint, restart, scaled, scaled_minute};

const CONFLIST: &str = "cni-conf/10-bobbin.conflist";
const PLUGIN: &str = "cni-bin/bobbin";

pub async fn withheld(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    let (plugin, conflist) = (node.path(PLUGIN), node.path(CONFLIST));
    remove(&plugin)?;
    remove(&conflist)?;
    // Put a directory with a file in the plugin's place. The installation then fails, because the agent can't rename a
    // file onto such a directory.
    std::fs::create_dir_all(plugin.join("in-the-way"))?;
    node.set_agent_flags(&scaled("0.1").iter().map(String::as_str).collect::<Vec<_>>());
    let begun = node.agent_log().len();
    node.start_agent().await?;
    wait_until("the agent logs that it could not install the plugin", WAIT_TIMEOUT, || async {
        let log = node.agent_log().split_off(begun);
        let told = |line: &str| (line.contains("WARN") || line.contains("ERROR")) && line.contains(PLUGIN);
        Ok(check(log.lines().any(told), || log))
    })
    .await?;
    metrics_endpoint::await_stale_checks(node, 2).await?;
    ensure!(!conflist.exists(), "the agent installed the CNI configuration without the plugin");
    std::fs::remove_dir_all(&plugin)?;
    wait_until("the agent has installed the plugin and the CNI configuration", scaled_minute(), || async {
        let seen = (plugin.is_file(), conflist.is_file());
        Ok(check(seen == (true, true), || format!("the plugin and the configuration exist: {seen:?}")))
    })
    .await?;
    restart(node, &[]).await
}

pub async fn put_back(node: &mut SingleNode) -> Result<()> {
    restart(node, &scaled("0.1")).await?;
    let (plugin, conflist) = (node.path(PLUGIN), node.path(CONFLIST));
    wait_until("the plugin and the CNI configuration exist", WAIT_TIMEOUT, || async {
        Ok(check(plugin.is_file() && conflist.is_file(), || "not yet".to_owned()))
    })
    .await?;
    let right = (std::fs::read(&plugin)?, std::fs::read(&conflist)?);
    let is_right = || anyhow::Ok((std::fs::read(&plugin)?, std::fs::read(&conflist)?) == right);
    let back = async |what: &str| {
        wait_until(&format!("the agent has restored both files after {what}"), scaled_minute(), || async {
            Ok(check(is_right()?, || "the files differ from the originals".to_owned()))
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
    };
    remove(&plugin)?;
    remove(&conflist)?;
    back("the test had removed them").await?;
    remove(&plugin)?;
    std::fs::write(&plugin, "#!/bin/false\n")?;
    std::fs::write(&conflist, "{}")?;
    back("the test had changed them").await?;
    restart(node, &[]).await
}

fn remove(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
