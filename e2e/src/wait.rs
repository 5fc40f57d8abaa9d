//! Waits for a condition with a deadline. After the deadline, the error names the condition and describes the state
//! that the last check saw.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of one check of a condition.
pub enum Poll<T> {
    /// The condition holds.
    Ready(T),
    /// The condition does not hold yet. The text describes what the check saw.
    Pending(String),
}

/// Checks a condition until it holds or `timeout` has passed. If a check returns an error, the condition does not hold
/// yet.
pub async fn wait_until<T, F, R>(condition: &str, timeout: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<Poll<T>>>,
{
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
        let seen = match tokio::time::timeout(left, check()).await {
            Ok(Ok(Poll::Ready(value))) => return Ok(value),
            Ok(Ok(Poll::Pending(seen))) => seen,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the last check did not finish in time".to_owned(),
        };
        if start.elapsed() > timeout {
            return Err(anyhow!(
                "timed out after waiting {} s until {condition}; the last check saw: {seen}",
                timeout.as_secs()
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The outcome of a check. If the condition does not hold, `seen` describes the state that the check found.
pub fn check(holds: bool, seen: impl FnOnce() -> String) -> Poll<()> {
    if holds { Poll::Ready(()) } else { Poll::Pending(seen()) }
}
