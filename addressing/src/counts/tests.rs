//! Tests of `counts`.
