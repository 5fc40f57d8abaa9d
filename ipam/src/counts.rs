//! Counts as the API shows them: `int64` that stops at the largest integer every JSON reader keeps exactly.

/// 2^53 − 1, where counts saturate.
pub const MOST: i64 = (1 << 53) - 1;

/// The count as the API shows it: the number, or [`MOST`].
pub fn saturating(count: u128) -> i64 {
    i64::try_from(count).map_or(MOST, |count| count.min(MOST))
}

/// The sum of two shown counts.
pub fn add(a: i64, b: i64) -> i64 {
    a.saturating_add(b).clamp(0, MOST)
}

/// The difference of two shown counts, not below zero.
pub fn subtract(a: i64, b: i64) -> i64 {
    a.saturating_sub(b).clamp(0, MOST)
}

#[cfg(test)]
mod tests;
