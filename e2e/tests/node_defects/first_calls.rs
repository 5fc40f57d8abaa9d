//! Many ADDs at once before the agent has made its rules: each finds them made, by itself or by another.

use anyhow::{Result, ensure};
use bobbin_e2e::lone_node::{LoneNode, Pod};

use super::end;

/// The race is one of microseconds; so often it is run.
const ROUNDS: usize = 6;

pub async fn thirty_at_once(node: &mut LoneNode) -> Result<()> {
    for round in 0..ROUNDS {
        node.kill_agent();
        node.start_agent().await?;
        let pods: Vec<Pod> = (0..30).map(|_| node.pod()).collect::<Result<_>>()?;
        // As after a boot: the rules are not there. Their removal makes the agent repair them meanwhile.
        for family in ["-4", "-6"] {
            node.namespace.command("ip").args([family, "rule", "del", "priority", "2000"]).output()?;
        }
        let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("ADD")).collect())?;
        for answer in &answers {
            ensure!(answer.exit == 0, "in round {round} one of 30 ADDs failed: {}", answer.stdout.trim());
        }
        let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
        for answer in answers {
            answer.ok()?;
        }
        end(node, pods, &[]).await?;
    }
    Ok(())
}
