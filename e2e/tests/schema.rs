//! Tests the schemas of Bobbin's three resources on a real kube-apiserver. Each validation rule accepts valid objects.
//! If an object breaks a rule, the API server refuses it with the message of only this rule.

#![allow(clippy::needless_pass_by_value, reason = "tests build objects out of objects")]

#[path = "schema/accepted.rs"]
mod accepted;
#[path = "schema/assignment.rs"]
mod assignment;
#[path = "schema/block.rs"]
mod block;
#[path = "schema/fixture.rs"]
mod fixture;
#[path = "schema/largest.rs"]
mod largest;
#[path = "schema/pool.rs"]
mod pool;
#[path = "schema/surface.rs"]
mod surface;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = fixture::suite()?;
    let tests = [pool::tests, accepted::tests, block::tests, assignment::tests, largest::tests, surface::tests];
    let tests = tests.into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
