//! Computes how long a client waits before it tries again. The functions are pure, except for the random part of a wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Returns the wait before a retry: `base`, doubled for each earlier retry, but at most `cap`. `attempt` is the number of
/// earlier retries.
///
/// The function subtracts a random part, up to half of the wait. So clients whose calls failed at the same time retry at
/// different times.
pub fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let full = base.saturating_mul(1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX)).min(cap);
    jittered(full)
}

/// Returns a random time between half of `full` and `full`.
pub fn jittered(full: Duration) -> Duration {
    let dice = RandomState::new().hash_one(0_u8) % 1000;
    full / 2 + (full / 2).mul_f64(dice as f64 / 1000.0)
}

/// Returns a random time from zero to `full`. Several clients may learn of a change at the same time. Each waits for
/// its own random time, so they act at different times.
pub fn spread(full: Duration) -> Duration {
    (jittered(full).saturating_sub(full / 2)).saturating_mul(2)
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
                "the wait before attempt {attempt} is {wait:?}, which is not between half of {full:?} and {full:?}"
            );
        }
    }

    #[test]
    fn a_spread_reaches_from_zero_to_its_length() {
        let full = Duration::from_secs(1);
        let waits: Vec<_> = (0..500).map(|_| spread(full)).collect();
        assert!(waits.iter().all(|wait| *wait <= full));
        assert!(waits.iter().any(|wait| *wait < full / 5) && waits.iter().any(|wait| *wait > full * 4 / 5));
    }
}
