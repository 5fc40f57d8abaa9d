//! The loop that keeps the installation, and tells what is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::problem::Told;
use super::{Installed, Installer};
use crate::agent::Agent;

/// What disappears or is changed is put back within a minute.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a pass may take before the loop counts as hanging: every chained plugin may need its full time to answer.
const RECONCILE_DEADLINE: Duration = Duration::from_mins(5);

/// Installs, and puts back what others remove, until the agent stops. The configuration waits until the agent `serves`.
pub async fn run(agent: Arc<Agent>, mut serves: watch::Receiver<bool>) {
    let interval = RECONCILE_INTERVAL.mul_f64(agent.args.time_scale);
    let beat = agent.watchdog.register("install", RECONCILE_DEADLINE.mul_f64(agent.args.time_scale));
    let mut installer = Installer::new(agent.args.clone());
    let mut told = Told::default();
    loop {
        let may_serve = *serves.borrow_and_update();
        let done = installer.reconcile(may_serve).await;
        tell(&agent, &done, &mut told);
        let pause = async {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = changed(&mut serves) => {}
            }
        };
        tokio::select! {
            () = agent.stop.cancelled() => return,
            () = beat.while_idle(pause) => {}
        }
    }
}

/// Waits for news; for ever once there can be none.
async fn changed(serves: &mut watch::Receiver<bool>) {
    if serves.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn tell(agent: &Agent, done: &Installed, told: &mut Told) {
    for path in &done.new {
        tracing::info!("installed {}", path.display());
    }
    for path in &done.restored {
        let sentence = format!(
            "another program removed or changed {} on node {}; Bobbin put it back; find out which program manages that directory there, or it happens again",
            path.display(),
            agent.args.node_name
        );
        tracing::warn!("{sentence}");
        agent.events.node_warning("InstallationRestored", &sentence);
    }
    let news = told.news(&done.problems, Instant::now());
    for problem in news.begun {
        tracing::warn!("{}", problem.sentence);
        agent.events.node_warning(problem.reason, &problem.sentence);
    }
    for problem in news.over {
        tracing::info!("solved: {}", problem.sentence);
    }
}
