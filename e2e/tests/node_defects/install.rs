//! The plugin and its CNI configuration: the configuration never exists without the plugin, and both are restored.

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
    // A file can't be renamed onto a directory that is not empty, so the installation fails.
    std::fs::create_dir_all(plugin.join("in-the-way"))?;
    node.set_agent_flags(&scaled("0.1").iter().map(String::as_str).collect::<Vec<_>>());
    let begun = node.agent_log().len();
    node.start_agent().await?;
    wait_until("the agent reports that the plugin could not be installed", WAIT_TIMEOUT, || async {
        let log = node.agent_log().split_off(begun);
        let told = |line: &str| (line.contains("WARN") || line.contains("ERROR")) && line.contains(PLUGIN);
        Ok(check(log.lines().any(told), || log))
    })
    .await?;
    metrics_endpoint::await_stale_checks(node, 2).await?;
    ensure!(!conflist.exists(), "the CNI configuration was installed although the plugin could not be");
    std::fs::remove_dir_all(&plugin)?;
    wait_until("plugin and configuration are installed as soon as they can be", scaled_minute(), || async {
        let seen = (plugin.is_file(), conflist.is_file());
        Ok(check(seen == (true, true), || format!("plugin, configuration: {seen:?}")))
    })
    .await?;
    restart(node, &[]).await
}

pub async fn put_back(node: &mut SingleNode) -> Result<()> {
    restart(node, &scaled("0.1")).await?;
    let (plugin, conflist) = (node.path(PLUGIN), node.path(CONFLIST));
    wait_until("plugin and configuration are there", WAIT_TIMEOUT, || async {
        Ok(check(plugin.is_file() && conflist.is_file(), || "not yet".to_owned()))
    })
    .await?;
    let right = (std::fs::read(&plugin)?, std::fs::read(&conflist)?);
    let is_right = || anyhow::Ok((std::fs::read(&plugin)?, std::fs::read(&conflist)?) == right);
    let back = async |what: &str| {
        wait_until(&format!("{what}: put back within a minute"), scaled_minute(), || async {
            Ok(check(is_right()?, || "it is not as it was".to_owned()))
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
    };
    remove(&plugin)?;
    remove(&conflist)?;
    back("the plugin and the configuration were removed").await?;
    remove(&plugin)?;
    std::fs::write(&plugin, "#!/bin/false\n")?;
    std::fs::write(&conflist, "{}")?;
    back("the plugin and the configuration were changed").await?;
    restart(node, &[]).await
}

fn remove(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
