//! Finds pools whose reconcile pass takes too long, or whose passes keep failing. Such a pool makes the operator unready,
//! and a gauge shows how long the problem has lasted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a pass may take before the operator becomes unready. A pass makes several calls, each with its own
/// deadline.
const MAX_PASS_DURATION: Duration = Duration::from_mins(1);
/// How long the passes of a pool may fail before the operator becomes unready.
const MAX_FAILURE: Duration = Duration::from_secs(30);

/// The reconcile passes of all pools.
#[derive(Debug, Default)]
pub(crate) struct PassHealth(Mutex<BTreeMap<Arc<str>, PoolPasses>>);

#[derive(Debug, Default)]
struct PoolPasses {
    /// The start of the running pass. `None` if no pass is running.
    running_since: Option<Instant>,
    /// The start of the first failed pass since the last success, and why the last pass failed. `None` if the last pass
    /// succeeded.
    failing: Option<(Instant, String)>,
}

impl PassHealth {
    /// Notes that a pass of a pool begins.
    pub(super) fn begin(&self, pool: &Arc<str>, now: Instant) {
        self.0.lock().entry(Arc::clone(pool)).or_default().running_since = Some(now);
    }

    /// Notes that the pass of a pool has ended, and the error if the pass failed.
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

    /// The longest time for which the passes of a pool have failed, or one overdue pass has run, in seconds. 0 if no pool
    /// has a problem.
    pub(crate) fn failing_seconds(&self, now: Instant) -> f64 {
        self.problems(now, |_, problem| problem.time()).into_iter().max().unwrap_or_default().as_secs_f64()
    }

    /// Fails if a pass takes too long, or if the passes of a pool have failed for too long. The error names the pool and
    /// the reason.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        let sentences = self.problems(now, |pool, problem| {
            let seconds = problem.time().as_secs();
            match problem {
                Problem::Overdue(_) => {
                    Some(format!("the reconcile pass of pool {pool:?} has not ended for {seconds} s"))
                }
                Problem::Failing(time, error) => (time > MAX_FAILURE)
                    .then(|| format!("reconciling pool {pool:?} has failed for {seconds} s: {error}")),
            }
        });
        sentences.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// Calls `each` for each pool with a problem, in the order of the pools' names.
    fn problems<T>(&self, now: Instant, each: impl Fn(&str, Problem<'_>) -> T) -> Vec<T> {
        let pools = self.0.lock();
        pools.iter().filter_map(|(pool, passes)| Some(each(pool, passes.problem(now)?))).collect()
    }
}

/// A problem with the passes of a pool, and how long the problem has lasted.
enum Problem<'a> {
    /// The running pass has taken too long.
    Overdue(Duration),
    /// The last passes failed. Contains the last error.
    Failing(Duration, &'a str),
}

impl Problem<'_> {
    fn time(&self) -> Duration {
        match self {
            Problem::Overdue(time) | Problem::Failing(time, _) => *time,
        }
    }
}

impl PoolPasses {
    /// The problem of the pool. If a pass is overdue and earlier passes failed, returns the problem that has lasted longer.
    fn problem(&self, now: Instant) -> Option<Problem<'_>> {
        let running =
            self.running_since.map(|since| now.duration_since(since)).filter(|time| *time > MAX_PASS_DURATION);
        let failing = self.failing.as_ref().map(|(since, error)| (now.duration_since(*since), error.as_str()));
        match (running, failing) {
            (running, Some((time, error))) if running.is_none_or(|running| running < time) => {
                Some(Problem::Failing(time, error))
            }
            (running, _) => running.map(Problem::Overdue),
        }
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
