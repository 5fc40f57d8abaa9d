//! Tests the operator with a real kube-apiserver. Two operators work at once without an election, so each test also
//! covers the case that two operators lead. The tests act as agents. They claim and release blocks, and create
//! assignments.

#[path = "operator/acceptance.rs"]
mod acceptance;
#[path = "operator/carve.rs"]
mod carve;
#[path = "operator/crash_points.rs"]
mod crash_points;
#[path = "operator/deleted_nodes.rs"]
mod deleted_nodes;
#[path = "operator/elected_operators.rs"]
mod elected_operators;
#[path = "operator/fixture.rs"]
mod fixture;
#[path = "operator/foreign_addresses.rs"]
mod foreign_addresses;
#[path = "operator/frozen_leader.rs"]
mod frozen_leader;
#[path = "operator/held_nodes.rs"]
mod held_nodes;
#[path = "operator/leader_election.rs"]
mod leader_election;
#[path = "operator/overlap.rs"]
mod overlap;
#[path = "operator/pod_comparison.rs"]
mod pod_comparison;
#[path = "operator/pool_deletion.rs"]
mod pool_deletion;
#[path = "operator/refusals.rs"]
mod refusals;
#[path = "operator/reserved.rs"]
mod reserved;
#[path = "operator/status.rs"]
mod status;
#[path = "operator/unreadable.rs"]
mod unreadable;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    bobbin_observability::init_logs(bobbin_observability::LogFormat::Text, &bobbin_observability::LogLevel::default());
    let suite = fixture::suite()?;
    let tests = [
        carve::tests,
        overlap::tests,
        acceptance::tests,
        foreign_addresses::tests,
        pool_deletion::tests,
        deleted_nodes::tests,
        held_nodes::tests,
        status::tests,
        reserved::tests,
        leader_election::tests,
        unreadable::tests,
        pod_comparison::tests,
        crash_points::tests,
        frozen_leader::tests,
        refusals::tests,
    ];
    let tests = tests.into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
