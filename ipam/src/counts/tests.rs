//! Tests that no count exceeds 2^53 − 1, because some JSON parsers round larger integers.

use super::*;

#[test]
fn counts_saturate_at_two_to_the_53_minus_one() {
    assert_eq!(saturating(0), 0);
    assert_eq!(saturating(u128::from(MAX_COUNT as u64)), MAX_COUNT);
    assert_eq!(saturating(1 << 53), MAX_COUNT);
    assert_eq!(saturating(u128::MAX), MAX_COUNT);
    assert_eq!(add(MAX_COUNT, 1), MAX_COUNT);
    assert_eq!(add(i64::MAX, i64::MAX), MAX_COUNT);
    assert_eq!(subtract(3, 5), 0);
    assert_eq!(subtract(5, 3), 2);
}
