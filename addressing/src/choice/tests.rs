//! Tests of `choice`.
