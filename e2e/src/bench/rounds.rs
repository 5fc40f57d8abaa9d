//! The rounds: Bobbin and the reference by turns, one by one and a hundred at once, IPv4 and dual stack.

use std::time::Duration;

use anyhow::Result;

use super::samples::Samples;
use super::stages::Totals;
use super::{Extent, KubePod, Report};
use crate::lone_node::{LoneNode, Plugin, Pod};

/// The four rows of one plugin and one kind of pods.
#[derive(Default)]
struct Times {
    add: Samples,
    del: Samples,
    add_at_once: Samples,
    del_at_once: Samples,
    /// Calls that failed.
    errors: Vec<String>,
}

/// Measures all rounds.
pub async fn measure(node: &LoneNode, extent: Extent, pods: &[KubePod], report: &mut Report) -> Result<()> {
    let mut stages = Totals::default();
    for (dual, family) in [(false, "IPv4"), (true, "dual")] {
        let (mut ours, mut theirs) = (Times::default(), Times::default());
        let kube_pods: Vec<&KubePod> = pods.iter().filter(|pod| pod.ipv4_only != dual).collect();
        for round in 0..extent.rounds {
            eprintln!("bench: {family}, round {} of {}", round + 1, extent.rounds);
            let reference = node.reference(dual)?;
            let few = if dual { extent.one_by_one_reference_dual } else { extent.one_by_one };
            // Who begins changes from round to round.
            for turn in [round % 2, 1 - round % 2] {
                if turn == 0 {
                    one_round(node, &node.plugin(), &kube_pods, extent.one_by_one, &mut ours, &mut stages).await?;
                } else {
                    one_round(node, &reference, &kube_pods, few, &mut theirs, &mut Totals::default()).await?;
                }
            }
        }
        report.errors.extend(ours.errors);
        report.reference_errors.extend(theirs.errors);
        report.add(&format!("ADD {family}"), ours.add, Some(theirs.add));
        report.add(&format!("DEL {family}"), ours.del, Some(theirs.del));
        report.add(&format!("{} ADDs at once, {family}", extent.at_once), ours.add_at_once, Some(theirs.add_at_once));
        report.add(&format!("{} DELs at once, {family}", extent.at_once), ours.del_at_once, Some(theirs.del_at_once));
    }
    stages.tell(report);
    Ok(())
}

async fn one_round(
    node: &LoneNode,
    plugin: &Plugin,
    kube_pods: &[&KubePod],
    one_by_one: usize,
    times: &mut Times,
    stages: &mut Totals,
) -> Result<()> {
    let pods = kube_pods.iter().take(one_by_one).map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
    let before = Totals::read(node)?;
    let pods = each(plugin, "ADD", pods, &mut times.add, &mut times.errors)?;
    let pods = each(plugin, "DEL", pods, &mut times.del, &mut times.errors)?;
    stages.gather(&before, &Totals::read(node)?);
    drop(pods);
    node.await_records(&[], Duration::from_mins(1)).await?;
    let pods = kube_pods.iter().map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
    for (verb, samples) in [("ADD", &mut times.add_at_once), ("DEL", &mut times.del_at_once)] {
        let (answers, took) = plugin.call_at_once(pods.iter().map(|pod| pod.call(verb)).collect())?;
        samples.add(took);
        let failed: Vec<&str> =
            answers.iter().filter(|answer| answer.exit != 0).map(|answer| answer.stdout.trim()).collect();
        if let Some(first) = failed.first() {
            times.errors.push(format!(
                "{} of {} {verb}s at once failed, the first: {first}",
                failed.len(),
                answers.len()
            ));
        }
    }
    drop(pods);
    node.await_records(&[], Duration::from_mins(1)).await
}

/// Calls for one pod after another, in a thread that is in the node's namespace, so that nothing but the call is measured.
fn each(
    plugin: &Plugin,
    verb: &'static str,
    pods: Vec<Pod>,
    samples: &mut Samples,
    errors: &mut Vec<String>,
) -> Result<Vec<Pod>> {
    let inside = plugin.clone();
    let (pods, answers) = plugin.namespace.run(move || {
        let answers: Vec<_> = pods.iter().map(|pod| inside.call_here(&pod.call(verb))).collect();
        (pods, answers)
    })?;
    for answer in answers {
        let answer = answer?;
        if answer.exit == 0 {
            samples.add(answer.took);
        } else {
            errors.push(format!("{verb} failed: {}", answer.stdout.trim()));
        }
    }
    Ok(pods)
}
