//! Tests Bobbin on a real cluster of three nodes, as users and administrators see it.

#[path = "cluster/api_calls.rs"]
mod api_calls;
#[path = "cluster/chaos.rs"]
mod chaos;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/connectivity.rs"]
mod connectivity;
#[path = "cluster/control_plane.rs"]
mod control_plane;
#[path = "cluster/dns.rs"]
mod dns;
#[path = "cluster/fixture.rs"]
mod fixture;
#[path = "cluster/full_pools.rs"]
mod full_pools;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/pool_selection.rs"]
mod pool_selection;
#[path = "cluster/probe.rs"]
mod probe;
#[path = "cluster/routing.rs"]
mod routing;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = fixture::suite()?;
    let tests = [
        connectivity::tests,
        chart::tests,
        dns::tests,
        control_plane::tests,
        pool_selection::tests,
        full_pools::tests,
        api_calls::tests,
        lifecycle::tests,
        routing::tests,
        outage::tests,
        nodes::tests,
        chaos::tests,
    ];
    let tests = tests.into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
