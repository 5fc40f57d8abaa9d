//! Prints times as ages, like `kubectl get`.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The time since `since` in its largest unit, for example `3h`. A time in the future has the age `0s`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    match seconds {
        DAY.. => format!("{}d", seconds / DAY),
        HOUR.. => format!("{}h", seconds / HOUR),
        MINUTE.. => format!("{}m", seconds / MINUTE),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_largest_unit() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let ages = [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7300, "2h"), (200_000, "2d")];
        for (seconds, text) in ages {
            assert_eq!(age(at(1000), at(1000 + seconds)), text);
        }
        assert_eq!(age(at(2000), at(1000)), "0s");
    }
}
