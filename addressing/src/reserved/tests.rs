//! Tests of `reserved`.
