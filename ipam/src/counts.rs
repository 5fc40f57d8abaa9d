//! Counts in API objects. A count is an `int64` value of at most 2^53 − 1, because some JSON parsers round larger
//! integers.

/// The largest count in an API object, 2^53 − 1.
pub const MAX_COUNT: i64 = (1 << 53) - 1;

/// Converts a count for an API object. A count above [`MAX_COUNT`] becomes [`MAX_COUNT`].
pub fn saturating(count: u128) -> i64 {
    i64::try_from(count).map_or(MAX_COUNT, |count| count.min(MAX_COUNT))
}

/// The sum of two counts, at most [`MAX_COUNT`].
pub fn add(a: i64, b: i64) -> i64 {
    a.saturating_add(b).clamp(0, MAX_COUNT)
}

/// The difference of two counts, or zero if the difference is negative.
pub fn subtract(a: i64, b: i64) -> i64 {
    a.saturating_sub(b).clamp(0, MAX_COUNT)
}

#[cfg(test)]
mod tests;
