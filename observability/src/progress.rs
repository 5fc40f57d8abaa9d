//! Which loops of a program make progress: each loop registers with a deadline of its own and beats; liveness names the one that hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The loops of a program. Cheap to clone; all clones are one registry.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    start: Instant,
    loops: Mutex<Vec<Weak<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    deadline: Duration,
    /// Milliseconds from the registry's start to the last beat.
    last: AtomicU64,
}

/// The handle by which a loop says that it makes progress. Dropped, the loop is forgotten: it has ended, and whoever started it decides
/// whether it should have.
#[derive(Debug)]
pub struct Beat {
    registry: Arc<Registry>,
    of: Arc<Loop>,
}

/// A loop that has made no progress for longer than its deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("loop {name:?} has made no progress for {} s (its deadline is {} s)", silent.as_secs(), deadline.as_secs())]
pub struct Stalled {
    /// The loop's name.
    pub name: &'static str,
    /// How long ago it last made progress.
    pub silent: Duration,
    /// How long it may take.
    pub deadline: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Registry { start: Instant::now(), loops: Mutex::default() }))
    }
}

impl Progress {
    /// Registers a loop. It must call [`Beat::made`] at least once per `deadline`; a deadline is a multiple of the slowest turn that is
    /// still healthy, because missing it restarts the program.
    pub fn register(&self, name: &'static str, deadline: Duration) -> Beat {
        let last = AtomicU64::new(self.0.elapsed());
        let of = Arc::new(Loop { name, deadline, last });
        let mut loops = self.0.loops.lock();
        loops.retain(|each| each.strong_count() > 0);
        loops.push(Arc::downgrade(&of));
        Beat { registry: Arc::clone(&self.0), of }
    }

    /// The loops that have missed their deadline, the longest silent one first.
    pub fn stalled(&self) -> Vec<Stalled> {
        let now = self.0.elapsed();
        let loops = self.0.loops.lock();
        let alive = loops.iter().filter_map(Weak::upgrade);
        let mut stalled: Vec<Stalled> = alive.filter_map(|each| each.stalled(now)).collect();
        stalled.sort_by_key(|each| std::cmp::Reverse(each.silent));
        stalled
    }

    /// The verdict of liveness: an error names each loop that hangs, and for how long.
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
    fn stalled(&self, now: u64) -> Option<Stalled> {
        let silent = Duration::from_millis(now.saturating_sub(self.last.load(Ordering::Relaxed)));
        (silent > self.deadline).then_some(Stalled { name: self.name, silent, deadline: self.deadline })
    }
}

impl Beat {
    /// The loop has made progress.
    pub fn made(&self) {
        self.of.last.store(self.registry.elapsed(), Ordering::Relaxed);
    }

    /// Awaits something that may rightly take long, and beats meanwhile: an idle loop's next event, a timer, the end of a backoff.
    ///
    /// # Warning
    /// Never wrap work in it: work that hangs would count as progress.
    pub async fn while_idle<F: Future>(&self, idle: F) -> F::Output {
        let mut idle = std::pin::pin!(idle);
        loop {
            self.made();
            if let Ok(output) = tokio::time::timeout(self.of.deadline / 3, &mut idle).await {
                self.made();
                return output;
            }
        }
    }
}

#[cfg(test)]
mod tests;
