//! Tests of `attachment`.
