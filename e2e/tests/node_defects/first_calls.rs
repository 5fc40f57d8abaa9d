//! Many ADDs arrive at once while Bobbin's policy rules are missing. Each ADD must succeed.

use std::fmt::Write;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use nix::sys::signal::{Signal, kill};

use super::end;

const CALLS: usize = 30;
/// How often the test repeats the simultaneous ADDs.
const ROUNDS: usize = 5;
/// The number of foreign rules. The agent takes time to list them, so the ADDs run while the agent is still restoring
/// its own rules.
const RULES: usize = 1000;

pub async fn thirty_at_once(node: &mut SingleNode) -> Result<()> {
    node.namespace.ip(&foreign_rules("add"))?;
    for round in 0..ROUNDS {
        node.kill_agent();
        node.start_agent().await?;
        let pods: Vec<Sandbox> = (0..CALLS).map(|_| node.sandbox()).collect::<Result<_>>()?;
        let (calls, plugin) = (pods.iter().map(|pod| pod.call("ADD")).collect(), node.plugin());
        // Stop the agent, let all calls wait in the queue of its socket, and remove the rules. When the agent continues,
        // it restores the rules and handles the calls.
        kill(node.agent_pid()?, Signal::SIGSTOP)?;
        wait_until("all threads of the agent are stopped", WAIT_TIMEOUT, || async {
            Ok(check(is_stopped(node)?, || "the agent is still running".to_owned()))
        })
        .await?;
        let adding = std::thread::spawn(move || plugin.call_at_once(calls));
        let queued =
            wait_until("all ADD calls are waiting in the queue of the agent's socket", WAIT_TIMEOUT, || async {
                let waiting = queue(node)?;
                Ok(check(waiting >= CALLS, || format!("{waiting} calls are waiting")))
            })
            .await;
        for family in ["-4", "-6"] {
            node.namespace.command("ip").args([family, "rule", "del", "priority", "2000"]).output()?;
        }
        kill(node.agent_pid()?, Signal::SIGCONT)?;
        let (answers, _) = adding.join().map_err(|_| anyhow!("the thread of the calls panicked"))??;
        queued?;
        let failed: Vec<&str> =
            answers.iter().filter(|answer| answer.exit != 0).map(|answer| answer.stdout.trim()).collect();
        ensure!(
            failed.is_empty(),
            "in round {round}, {} of {CALLS} ADDs failed; one error is {}",
            failed.len(),
            failed[0]
        );
        let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
        for answer in answers {
            answer.ok()?;
        }
        end(node, pods, &[]).await?;
    }
    node.namespace.ip(&foreign_rules("del"))
}

fn foreign_rules(verb: &str) -> String {
    let mut lines = String::new();
    for number in 0..RULES {
        let (high, low) = (number / 256, number % 256);
        let _ = writeln!(lines, "rule {verb} from 203.{high}.113.{low} table 77 priority {}", 20_000 + number);
    }
    lines
}

/// Whether every thread of the agent has stopped.
fn is_stopped(node: &SingleNode) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{}/task", node.agent_pid()?))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        if !status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of connections in the queue of the agent's socket.
fn queue(node: &SingleNode) -> Result<usize> {
    let output = node.namespace.command("ss").args(["-xlnH"]).output().context("the program ss is missing")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let directory = node.run_dir().display().to_string();
    let line = text
        .lines()
        .find(|line| line.contains(&format!("{directory}/agent.")))
        .context("no process listens in the run directory")?;
    Ok(line.split_whitespace().nth(2).context("no queue")?.parse()?)
}
