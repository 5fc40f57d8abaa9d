//! Tests STATUS. While the agent is not running, the plugin answers STATUS from marker files.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Call, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::restart;

fn status() -> Call {
    Call { verb: "STATUS", ..Call::default() }
}

pub async fn long_away(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    node.kill_agent();
    node.call(&status())?.ok().context("STATUS failed just after the agent ended")?;
    // Version 0.1 of the plugin wrote this file. It contains the time at which the agent became unreachable, in
    // milliseconds since boot. Write a time just after boot.
    std::fs::write(node.run_dir().join("unreached"), "1")?;
    node.call(&status())?.ok().context("STATUS failed for an agent that has been stopped for more than 60 s")?;
    let other = node.sandbox()?;
    let error = node.call(&other.call("ADD"))?.error()?;
    ensure!(error.code == 11, "{error:?}");
    std::fs::remove_file(node.run_dir().join("unreached"))?;
    node.start_agent().await?;
    super::end(node, vec![pod, other], &[]).await
}

pub async fn markers_forgotten(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    node.call(&status())?.ok()?;
    node.set_agent_flags(&["--mode=remove"]);
    let begun = node.agent_log().len();
    node.start_agent_only()?;
    wait_until("the agent has removed Bobbin from the node", WAIT_TIMEOUT, || async {
        let log = node.agent_log().split_off(begun);
        Ok(check(log.contains("Bobbin was removed from node"), || log))
    })
    .await?;
    let left: Vec<String> = std::fs::read_dir(node.run_dir())?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !matches!(name.as_str(), "agent.sock" | "health.sock" | "lock"))
        .collect();
    ensure!(left.is_empty(), "the run directory still contains {left:?} after the uninstall");
    restart(node, &[]).await
}
