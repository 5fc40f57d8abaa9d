//! Measures a hundred simultaneous ADDs that are the first calls after a boot. These ADDs alternate with a hundred ADDs
//! of the reference plugins. The agent is running, but neither the kernel nor the run directory has state of an earlier
//! agent.

use std::time::Duration;

use anyhow::Result;

use super::rounds::at_once;
use super::samples::Samples;
use super::stages::Phase;
use super::{BenchConfig, KubePod, Report};
use crate::single_node::{SingleNode, WAIT_TIMEOUT};
use crate::wait::{check, wait_until};

/// Measures all rounds. Uses only IPv4-only pods, because all thresholds that compare ADD with the reference plugins
/// are for IPv4-only pods.
pub async fn measure(node: &mut SingleNode, config: BenchConfig, pods: &[KubePod], report: &mut Report) -> Result<()> {
    let pods: Vec<&KubePod> = pods.iter().filter(|pod| pod.ipv4_only).collect();
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let mut phase = Phase::default();
    for round in 0..config.rounds {
        eprintln!("bench: measuring the first calls after a boot, round {} of {}", round + 1, config.rounds);
        for turn in [round % 2, 1 - round % 2] {
            if turn == 0 {
                reboot(node, round).await?;
                at_once(node, &node.plugin(), &pods, [&mut ours, &mut Samples::default()], &mut report.errors, {
                    Some(&mut phase)
                })?;
            } else {
                let errors = &mut report.reference_errors;
                let reference = node.reference(false)?;
                at_once(node, &reference, &pods, [&mut theirs, &mut Samples::default()], errors, None)?;
            }
            node.await_assignments(&[], Duration::from_mins(1)).await?;
        }
    }
    report.add(&format!("{} ADDs at once, boot", config.at_once), ours, Some(theirs));
    report.phases.push(("at once, boot", phase));
    Ok(())
}

/// Simulates a reboot of a node without pods. Removes Bobbin's rules and routes, the nftables ruleset and the files in
/// the run directory, and changes the boot ID.
async fn reboot(node: &mut SingleNode, round: usize) -> Result<()> {
    node.kill_agent();
    let seen = &*node;
    wait_until("the host links of all pods are gone", WAIT_TIMEOUT, || async {
        let links = seen.attachments()?.len();
        Ok(check(links == 0, || format!("{links} links exist")))
    })
    .await?;
    for family in ["-4", "-6"] {
        for what in ["rule del priority 2000", "route flush table 116", "route flush table 119"] {
            // Ignore a failure of the command, because it fails if there is nothing to remove.
            node.namespace.command("ip").arg(family).args(what.split(' ')).output()?;
        }
    }
    node.namespace.command("nft").args(["flush", "ruleset"]).output()?;
    for entry in std::fs::read_dir(node.run_dir())? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    std::fs::write(node.path("boot-id"), format!("22222222-2222-2222-2222-{round:012}\n"))?;
    node.start_agent().await
}
