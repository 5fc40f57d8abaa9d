//! Tests of `two_looks`.
