//! Tests of `subnet`.
