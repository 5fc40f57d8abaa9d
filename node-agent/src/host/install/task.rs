//! Keeps the plugin and the configuration installed in a loop, and reports problems.

use std::sync::Arc;
use std::time::Duration;

use bobbin_messages::event::agent as event;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::change_pause::ChangePause;
use super::directory_watch::DirectoryWatch;
use super::problem::ReportedProblems;
use super::{InstallReport, Installer};
use crate::agent::Agent;

/// How often the agent checks the installed files if it sees no change of their directories.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(30);
/// The first pause after a pass, before a change of a directory starts the next pass. Each repeated repair of a file doubles the pause.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The limit for the doubled pause while another program changes the files repeatedly. The limit is low, because a file may be missing
/// until the next pass.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// An installation pass that takes longer than this counts as hanging. The limit is long, because a pass may ask every chained plugin for
/// its CNI versions, and each plugin has 5 s to answer.
const RECONCILE_DEADLINE: Duration = Duration::from_mins(5);

/// Installs and restores the files until the agent stops. Installs the configuration only after the agent is ready (`serves` is true).
pub async fn run(agent: Arc<Agent>, mut serves: watch::Receiver<bool>) {
    let times = [RECONCILE_INTERVAL, MIN_PAUSE, MAX_PAUSE];
    let [interval, min_pause, max_pause] = times.map(|time| time.mul_f64(agent.args.time_scale));
    let beat = agent.watchdog.register("install", RECONCILE_DEADLINE.mul_f64(agent.args.time_scale));
    let mut installer = Installer::new(agent.args.clone());
    let mut reported = ReportedProblems::default();
    let mut change_pause = ChangePause::new(min_pause, max_pause);
    let mut directories = DirectoryWatch::new([agent.args.cni_bin_dir.clone(), agent.args.cni_conf_dir.clone()]);
    loop {
        let may_serve = *serves.borrow_and_update();
        // Watch the directories before the pass reads them, so that any later change starts another pass.
        directories.begin();
        let done = installer.reconcile(may_serve).await;
        report(&agent, &done, &mut reported);
        let pause = change_pause.after(!done.restored.is_empty(), Instant::now());
        let changed_directory = async {
            tokio::join!(tokio::time::sleep(pause), directories.changed());
        };
        let pause = async {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = changed(&mut serves) => {}
                () = changed_directory, if !done.failed() => {}
            }
        };
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = beat.while_idle(pause) => {}
        }
    }
}

/// Waits until `serves` changes. Waits forever if the sender of `serves` was dropped.
async fn changed(serves: &mut watch::Receiver<bool>) {
    if serves.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn report(agent: &Agent, done: &InstallReport, reported: &mut ReportedProblems) {
    for path in &done.new {
        tracing::info!("installed {}", path.display());
    }
    for path in &done.restored {
        let sentence = format!(
            "another program removed or changed {} on node {}, and the agent restored the file. If this happens again, find out which program manages the file's directory",
            path.display(),
            agent.args.node_name
        );
        tracing::warn!("{sentence}");
        agent.events.on_node(&event::INSTALLATION_RESTORED, &sentence);
    }
    agent.metrics.installation_repairs.inc_by(done.restored.len() as u64);
    agent.metrics.set_installation_problems(done.problems.iter().map(|problem| problem.event.reason));
    let restored = done.restored.iter().map(|path| path.display().to_string());
    let problems = done.problems.iter().map(|problem| (problem.event.reason, problem.sentence.as_str()));
    agent.recent.installed(restored, problems, Timestamp::now());
    let changes = reported.changes(&done.problems, Instant::now());
    for problem in changes.to_report {
        tracing::warn!("{}", problem.sentence);
        agent.events.on_node(problem.event, &problem.sentence);
    }
    for problem in changes.resolved {
        tracing::info!("this problem is resolved: {}", problem.sentence);
    }
}
