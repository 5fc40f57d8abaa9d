//! How long a client waits before it tries again. Pure, except for the random part of the wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The wait before a retry: `base`, doubled for each earlier retry, but at most `cap`. `attempt` is the number of earlier
/// retries.
///
/// The function subtracts a random part of the wait, up to one half, so that clients that failed together do not retry
/// together.
pub fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let full = base.saturating_mul(1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX)).min(cap);
    jittered(full)
}

/// A random time between half of `full` and `full`.
pub fn jittered(full: Duration) -> Duration {
    let dice = RandomState::new().hash_one(0_u8) % 1000;
    full / 2 + (full / 2).mul_f64(dice as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_grows_to_its_cap_and_is_never_below_half_of_it() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 0..200 {
            let full = (0..attempt).fold(base, |wait, _| (wait * 2).min(cap));
            let wait = backoff(attempt, base, cap);
            assert!(
                wait >= full / 2 && wait <= full,
                "attempt {attempt}: {wait:?} is not between half of {full:?} and {full:?}"
            );
        }
    }
}
