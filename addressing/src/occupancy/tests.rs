//! Tests of `occupancy`.
