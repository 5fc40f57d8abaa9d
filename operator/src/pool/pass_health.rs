//! Finds pools whose reconcile pass takes too long, or whose passes keep failing. Such a pool makes the operator unready, and a
//! gauge shows for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The operator becomes unready if a pass takes longer than this. A pass makes several calls, each with its own deadline.
const MAX_PASS_DURATION: Duration = Duration::from_mins(1);
/// The operator becomes unready if the passes of a pool fail for longer than this.
const MAX_FAILURE: Duration = Duration::from_secs(30);

/// The reconcile passes of all pools.
#[derive(Debug, Default)]
pub(crate) struct PassHealth(Mutex<BTreeMap<Arc<str>, PoolPasses>>);

#[derive(Debug, Default)]
struct PoolPasses {
    /// When the pass that now runs began.
    running_since: Option<Instant>,
    /// When the current series of failed passes began, and why the last pass failed.
    failing: Option<(Instant, String)>,
}

impl PassHealth {
    /// Notes that a pass of a pool begins.
    pub(super) fn begin(&self, pool: &Arc<str>, now: Instant) {
        self.0.lock().entry(Arc::clone(pool)).or_default().running_since = Some(now);
    }

    /// Notes that the pass of a pool has ended, with the error if it failed.
    pub(super) fn end(&self, pool: &str, error: Option<String>, now: Instant) {
        if let Some(passes) = self.0.lock().get_mut(pool) {
            let began = passes.running_since.take().unwrap_or(now);
            let since = passes.failing.take().map_or(began, |(since, _)| since);
            passes.failing = error.map(|error| (since, error));
        }
    }

    /// Forgets a pool that this operator does not reconcile any more.
    pub(super) fn forget(&self, pool: &str) {
        self.0.lock().remove(pool);
    }

    /// For how long a pool's passes have failed, or one pass has taken too long, in seconds: the maximum of all pools, or 0.
    pub(crate) fn failing_seconds(&self, now: Instant) -> f64 {
        let pools = self.0.lock();
        let overdue = |passes: &PoolPasses| {
            passes.running_since.map(|since| now.duration_since(since)).filter(|time| *time > MAX_PASS_DURATION)
        };
        let failing = |passes: &PoolPasses| passes.failing.as_ref().map(|(since, _)| now.duration_since(*since));
        pools.values().filter_map(|passes| overdue(passes).max(failing(passes))).max().unwrap_or_default().as_secs_f64()
    }

    /// Fails if a pass does not end, or if the passes of a pool fail for long. The error names the pool and the reason.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        for (pool, passes) in &*self.0.lock() {
            if let Some(time) = passes.running_since.map(|since| now.duration_since(since))
                && time > MAX_PASS_DURATION
            {
                let seconds = time.as_secs();
                return Err(format!("the reconcile pass of pool {pool:?} has not ended for {seconds} s"));
            }
            if let Some((since, error)) = &passes.failing
                && now.duration_since(*since) > MAX_FAILURE
            {
                let seconds = now.duration_since(*since).as_secs();
                return Err(format!("reconciling pool {pool:?} has failed for {seconds} s: {error}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn passes_that_fail_for_long_are_reported_until_one_succeeds() {
        let (health, start, pool) = (PassHealth::default(), Instant::now(), Arc::from("p"));
        for second in 0..=31 {
            health.begin(&pool, start + seconds(second));
            health.end(&pool, Some(format!("refused {second}")), start + seconds(second));
            assert_eq!(health.check(start + seconds(second)).is_err(), second == 31);
        }
        let why = health.check(start + seconds(32)).unwrap_err();
        assert_eq!(why, "reconciling pool \"p\" has failed for 32 s: refused 31");
        assert!((health.failing_seconds(start + seconds(32)) - 32.0).abs() < 0.1);
        health.begin(&pool, start + seconds(33));
        health.end(&pool, None, start + seconds(33));
        assert_eq!(health.check(start + seconds(99)), Ok(()));
        assert!(health.failing_seconds(start + seconds(99)) < 0.1);
    }

    #[test]
    fn a_pass_that_does_not_end_is_reported() {
        let (health, start, pool) = (PassHealth::default(), Instant::now(), Arc::from("p"));
        health.begin(&pool, start);
        assert_eq!(health.check(start + seconds(60)), Ok(()));
        assert!(health.check(start + seconds(61)).unwrap_err().contains("has not ended for 61 s"));
        assert!((health.failing_seconds(start + seconds(61)) - 61.0).abs() < 0.1);
        health.forget("p");
        assert_eq!(health.check(start + seconds(99)), Ok(()));
    }
}
