//! Keeps the identity file, the ready marker and the lock file current while the agent is running. The next agent computes from the
//! identity file how long no agent was running.

use std::time::Duration;

use bobbin_observability::Heartbeat;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Identity, RunDir, RunDirError};

/// How often the agent saves the identity. After a crash, the saved times are too old by up to this interval. The interval must be far
/// shorter than [`Times::outage_threshold`](crate::args::timing::Times::outage_threshold). Otherwise a crash would look like an API outage,
/// and newly claimed blocks would stay out of service for the quiet time.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// A heartbeat that takes longer than this counts as hanging.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_mins(1);

/// Saves the identity every [`HEARTBEAT_INTERVAL`] until `stop`, and immediately when `first_read` or `invalidations` changes. Logs the
/// first failed save, and the first successful save after a failure.
///
/// # Errors
/// If another agent has locked the run directory, or if the directory was removed. This agent must then exit at once.
pub async fn run(
    run_dir: &RunDir,
    identity: impl Fn() -> Identity,
    mut first_read: watch::Receiver<bool>,
    mut invalidations: watch::Receiver<u64>,
    beat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), RunDirError> {
    let mut failing = false;
    loop {
        beat.beat();
        let beat_once = beat_once(run_dir, &identity());
        match &beat_once {
            Err(RunDirError::TakenOver { .. } | RunDirError::Removed { .. }) => return beat_once,
            Err(error) if !failing => {
                tracing::error!(
                    "{error}. If the agent restarts before it can save its identity again, it trusts fewer of the node's blocks"
                );
            }
            Ok(()) if failing => tracing::info!("the run directory {} is writable again", run_dir.path().display()),
            Ok(()) | Err(_) => {}
        }
        failing = beat_once.is_err();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
            Ok(()) = first_read.changed() => {}
            Ok(()) = invalidations.changed() => {}
        }
    }
}

fn beat_once(run_dir: &RunDir, identity: &Identity) -> Result<(), RunDirError> {
    if run_dir.keep_lock()? {
        tracing::warn!(
            "another program removed the lock file of the run directory {}; the agent created and locked a new lock file",
            run_dir.path().display()
        );
    }
    run_dir.keep_marker()?;
    run_dir.save(identity)
}
