//! Runs the rounds, in which Bobbin and the reference plugins take turns. Each round makes calls one by one, and then a
//! hundred calls at once.

use std::time::Duration;

use anyhow::Result;

use super::samples::Samples;
use super::stages::{Phase, Totals, Verb};
use super::{BenchConfig, KubePod, Report};
use crate::single_node::{Plugin, Sandbox, SingleNode};

/// The times of the report's four rows for one plugin and one kind of pod (IPv4-only or dual-stack).
#[derive(Default)]
struct Times {
    add: Samples,
    del: Samples,
    add_at_once: Samples,
    del_at_once: Samples,
    /// The errors of the plugin's failed calls.
    errors: Vec<String>,
}

/// The stages of Bobbin's calls.
#[derive(Default)]
struct Phases {
    one_by_one: Phase,
    at_once: Phase,
}

/// Measures all rounds.
pub async fn measure(node: &SingleNode, config: BenchConfig, pods: &[KubePod], report: &mut Report) -> Result<()> {
    for (dual, family, names) in
        [(false, "IPv4", ["one by one, IPv4", "at once, IPv4"]), (true, "dual", ["one by one, dual", "at once, dual"])]
    {
        let (mut ours, mut theirs, mut phases) = (Times::default(), Times::default(), Phases::default());
        let kube_pods: Vec<&KubePod> = pods.iter().filter(|pod| pod.ipv4_only != dual).collect();
        for round in 0..config.rounds {
            eprintln!("bench: measuring {family} pods, round {} of {}", round + 1, config.rounds);
            let reference = node.reference(dual)?;
            let few = if dual { config.one_by_one_reference_dual } else { config.one_by_one };
            // Bobbin comes first in even rounds, and the reference plugins in odd rounds.
            for turn in [round % 2, 1 - round % 2] {
                if turn == 0 {
                    let phases = Some(&mut phases);
                    one_round(node, &node.plugin(), &kube_pods, config.one_by_one, &mut ours, phases).await?;
                } else {
                    one_round(node, &reference, &kube_pods, few, &mut theirs, None).await?;
                }
            }
        }
        report.errors.extend(ours.errors);
        report.reference_errors.extend(theirs.errors);
        report.add(&format!("ADD {family}"), ours.add, Some(theirs.add));
        report.add(&format!("DEL {family}"), ours.del, Some(theirs.del));
        report.add(&format!("{} ADDs at once, {family}", config.at_once), ours.add_at_once, Some(theirs.add_at_once));
        report.add(&format!("{} DELs at once, {family}", config.at_once), ours.del_at_once, Some(theirs.del_at_once));
        report.phases.extend(names.into_iter().zip([phases.one_by_one, phases.at_once]));
    }
    Ok(())
}

async fn one_round(
    node: &SingleNode,
    plugin: &Plugin,
    kube_pods: &[&KubePod],
    one_by_one: usize,
    times: &mut Times,
    phases: Option<&mut Phases>,
) -> Result<()> {
    let (mut single, several) = phases.map(|phases| (&mut phases.one_by_one, &mut phases.at_once)).unzip();
    let mut pods = kube_pods.iter().take(one_by_one).map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
    let before = Totals::read(node)?;
    for (verb, samples) in [(Verb::Add, &mut times.add), (Verb::Del, &mut times.del)] {
        let (sandboxes, took) = each(plugin, verb, pods, &mut times.errors)?;
        pods = sandboxes;
        for took in took {
            samples.add(took);
            if let Some(phase) = &mut single {
                phase.seen(verb, took);
            }
        }
    }
    if let Some(phase) = single {
        phase.gather(&before, &Totals::read(node)?);
    }
    drop(pods);
    node.await_assignments(&[], Duration::from_mins(1)).await?;
    at_once(node, plugin, kube_pods, [&mut times.add_at_once, &mut times.del_at_once], &mut times.errors, several)?;
    node.await_assignments(&[], Duration::from_mins(1)).await
}

/// Calls ADD for all pods at once, and then DEL for all pods at once. `times` receives two durations: the time until
/// the last ADD ended, and the time until the last DEL ended.
pub(super) fn at_once(
    node: &SingleNode,
    plugin: &Plugin,
    kube_pods: &[&KubePod],
    times: [&mut Samples; 2],
    errors: &mut Vec<String>,
    mut phase: Option<&mut Phase>,
) -> Result<()> {
    let pods = kube_pods.iter().map(|pod| pod.sandbox(node)).collect::<Result<Vec<_>>>()?;
    let before = Totals::read(node)?;
    for (verb, samples) in [Verb::Add, Verb::Del].into_iter().zip(times) {
        let (answers, took) = plugin.call_at_once(pods.iter().map(|pod| pod.call(verb.as_str())).collect())?;
        samples.add(took);
        if let Some(phase) = &mut phase {
            for answer in &answers {
                phase.seen(verb, answer.took);
            }
        }
        let failed: Vec<&str> =
            answers.iter().filter(|answer| answer.exit != 0).map(|answer| answer.stdout.trim()).collect();
        if let Some(first) = failed.first() {
            let (verb, count, all) = (verb.as_str(), failed.len(), answers.len());
            errors.push(format!("{count} of {all} simultaneous {verb}s failed; the first error was: {first}"));
        }
    }
    if let Some(phase) = phase {
        phase.gather(&before, &Totals::read(node)?);
    }
    Ok(())
}

/// Calls the plugin for one pod after another, and returns the times of successful calls. The calling thread is already
/// in the node's namespace, so the times do not include entering the namespace.
pub(super) fn each(
    plugin: &Plugin,
    verb: Verb,
    pods: Vec<Sandbox>,
    errors: &mut Vec<String>,
) -> Result<(Vec<Sandbox>, Vec<Duration>)> {
    let inside = plugin.clone();
    let (pods, answers) = plugin.namespace.run(move || {
        let answers: Vec<_> = pods.iter().map(|pod| inside.call_in_current_netns(&pod.call(verb.as_str()))).collect();
        (pods, answers)
    })?;
    let mut times = Vec::with_capacity(answers.len());
    for answer in answers {
        let answer = answer?;
        if answer.exit == 0 {
            times.push(answer.took);
        } else {
            errors.push(format!("{} failed: {}", verb.as_str(), answer.stdout.trim()));
        }
    }
    Ok((pods, times))
}
