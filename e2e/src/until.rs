//! Waiting for what must come true: a look again and again until a deadline, and the last look in the error. Tests wait only here.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What one look found.
pub enum Look<T> {
    /// It has come true.
    Yes(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

/// Looks until it is so. A look that fails counts as "not yet". The error says what was awaited and what was seen last.
pub async fn until<T, F, R>(what: &str, within: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<Look<T>>>,
{
    let start = Instant::now();
    loop {
        let left = within.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
        let seen = match tokio::time::timeout(left, look()).await {
            Ok(Ok(Look::Yes(value))) => return Ok(value),
            Ok(Ok(Look::NotYet(seen))) => seen,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "a look that took too long".to_owned(),
        };
        if start.elapsed() > within {
            return Err(anyhow!("not so within {} s: {what}; seen last: {seen}", within.as_secs()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A look that only says yes or no.
pub fn so(yes: bool, seen: impl FnOnce() -> String) -> Look<()> {
    if yes { Look::Yes(()) } else { Look::NotYet(seen()) }
}
