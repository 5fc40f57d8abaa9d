//! Tests of `stock`.
