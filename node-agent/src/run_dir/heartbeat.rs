//! Keeps identity file and ready marker current and the lock held while the agent runs, so that the next one knows how long nobody ran.

use std::time::Duration;

use bobbin_observability::Heartbeat;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Identity, RunDir, RunDirError};

/// How often; far below half of the shortest time after which a Node counts as gone (240 s).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long the loop may go without a turn before it counts as hanging.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_mins(1);

/// Writes the identity every [`HEARTBEAT_INTERVAL`], and at once when `news` change, until `stop`. A file that can't be written is reported when that begins and when it
/// ends.
///
/// # Errors
/// Another agent has the directory, or it was removed: this one must end at once.
pub async fn run(
    run_dir: &RunDir,
    identity: impl Fn() -> Identity,
    mut news: watch::Receiver<bool>,
    beat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), RunDirError> {
    let mut failing = false;
    loop {
        beat.beat();
        let turn = turn(run_dir, &identity());
        match &turn {
            Err(RunDirError::TakenOver { .. } | RunDirError::Removed { .. }) => return turn,
            Err(error) if !failing => {
                tracing::error!(
                    "{error}; until it can be written, a restart of this agent trusts fewer of the node's blocks"
                );
            }
            Ok(()) if failing => tracing::info!("the run directory {} can be written again", run_dir.path().display()),
            Ok(()) | Err(_) => {}
        }
        failing = turn.is_err();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
            Ok(()) = news.changed() => {}
        }
    }
}

fn turn(run_dir: &RunDir, identity: &Identity) -> Result<(), RunDirError> {
    if run_dir.keep_lock()? {
        tracing::warn!(
            "another program removed the lock file of the run directory {}; it is made and locked again",
            run_dir.path().display()
        );
    }
    run_dir.keep_marker()?;
    run_dir.save(identity)
}
