//! Tests the chart's admission policies on a real kube-apiserver. An agent whose token is bound to a pod on node n1 may
//! write only for n1.

#[path = "policy/assignments.rs"]
mod assignments;
#[path = "policy/blocks.rs"]
mod blocks;
#[path = "policy/deletions.rs"]
mod deletions;
#[path = "policy/examples.rs"]
mod examples;
#[path = "policy/fixture.rs"]
mod fixture;
#[path = "policy/operator.rs"]
mod operator;
#[path = "policy/pod_settings.rs"]
mod pod_settings;
#[path = "policy/roles.rs"]
mod roles;
#[path = "policy/stolen_token.rs"]
mod stolen_token;
#[path = "policy/uninstall.rs"]
mod uninstall;
#[path = "policy/values.rs"]
mod values;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = fixture::suite()?;
    let tests = [
        blocks::tests,
        assignments::tests,
        deletions::tests,
        operator::tests,
        roles::tests,
        uninstall::tests,
        values::tests,
        pod_settings::tests,
        examples::tests,
        stolen_token::tests,
    ];
    let tests = tests.into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
