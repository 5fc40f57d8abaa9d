//! Detects loops that hang. Each loop registers with a deadline and sends heartbeats; the liveness check names the
//! loops that missed their deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Watches the loops of a program. Cheap to clone, because all clones share one registry.
#[derive(Clone, Debug)]
pub struct Watchdog(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    start: Instant,
    loops: Mutex<Vec<Weak<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    deadline: Duration,
    /// When the loop last sent a heartbeat, in milliseconds since the start of the registry.
    last_beat: AtomicU64,
}

/// The handle with which a loop reports its progress. Dropping the handle removes the loop from the watchdog.
#[derive(Debug)]
pub struct Heartbeat {
    registry: Arc<Registry>,
    watched: Arc<Loop>,
}

/// A loop that has made no progress for longer than its deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("loop {name:?} has made no progress for {} s (its deadline is {} s)", silent.as_secs(), deadline.as_secs())]
pub struct Stalled {
    /// The name of the loop.
    pub name: &'static str,
    /// The time since the loop last made progress.
    pub silent: Duration,
    /// The maximum time between two heartbeats of the loop.
    pub deadline: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self(Arc::new(Registry { start: Instant::now(), loops: Mutex::default() }))
    }
}

impl Watchdog {
    /// Registers a loop. The loop must call [`Heartbeat::beat`] at least once per `deadline`.
    ///
    /// A missed deadline restarts the program, so choose a multiple of the time that the slowest healthy iteration
    /// takes.
    pub fn register(&self, name: &'static str, deadline: Duration) -> Heartbeat {
        let last_beat = AtomicU64::new(self.0.elapsed());
        let watched = Arc::new(Loop { name, deadline, last_beat });
        let mut loops = self.0.loops.lock();
        loops.retain(|each| each.strong_count() > 0);
        loops.push(Arc::downgrade(&watched));
        Heartbeat { registry: Arc::clone(&self.0), watched }
    }

    /// The loops that have missed their deadline. The loop with the longest silence comes first.
    pub fn stalled(&self) -> Vec<Stalled> {
        let now = self.0.elapsed();
        let loops = self.0.loops.lock();
        let alive = loops.iter().filter_map(Weak::upgrade);
        let mut stalled: Vec<Stalled> = alive.filter_map(|each| each.stalled(now)).collect();
        stalled.sort_by_key(|each| std::cmp::Reverse(each.silent));
        stalled
    }

    /// The name of each loop, and the time since its last heartbeat.
    pub fn ages(&self) -> Vec<(&'static str, Duration)> {
        let now = self.0.elapsed();
        let loops = self.0.loops.lock();
        loops.iter().filter_map(Weak::upgrade).map(|each| (each.name, each.silent(now))).collect()
    }

    /// Returns an error if a loop hangs. The error names each such loop and says how long it has made no progress.
    pub fn live(&self) -> Result<(), String> {
        let stalled: Vec<String> = self.stalled().iter().map(ToString::to_string).collect();
        if stalled.is_empty() { Ok(()) } else { Err(stalled.join("; ")) }
    }
}

impl Registry {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Loop {
    fn silent(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.last_beat.load(Ordering::Relaxed)))
    }

    fn stalled(&self, now: u64) -> Option<Stalled> {
        let silent = self.silent(now);
        (silent > self.deadline).then_some(Stalled { name: self.name, silent, deadline: self.deadline })
    }
}

impl Heartbeat {
    /// Reports that the loop makes progress.
    pub fn beat(&self) {
        self.watched.last_beat.store(self.registry.elapsed(), Ordering::Relaxed);
    }

    /// Waits for `idle` while the loop has no work, and sends heartbeats during the wait. `idle` is a future that
    /// completes with the next event, or at the end of a pause.
    ///
    /// # Warning
    /// Never pass work as `idle`, because a loop whose work hangs would still send heartbeats.
    pub async fn while_idle<F: Future>(&self, idle: F) -> F::Output {
        let mut idle = std::pin::pin!(idle);
        loop {
            self.beat();
            if let Ok(output) = tokio::time::timeout(self.watched.deadline / 3, &mut idle).await {
                self.beat();
                return output;
            }
        }
    }
}

#[cfg(test)]
mod tests;
