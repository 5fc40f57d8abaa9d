//! Tests routing daemons on the nodes: BIRD and FRR announce the blocks of table 119 to a router, which stands for the
//! top-of-rack switch. The chart or the files of docs/routing configure the daemons.

#[path = "routing/capture.rs"]
mod capture;
#[path = "routing/chart.rs"]
mod chart;
#[path = "routing/fixture.rs"]
mod fixture;
#[path = "routing/host_daemons.rs"]
mod host_daemons;
#[path = "routing/requests.rs"]
mod requests;
#[path = "routing/restarts.rs"]
mod restarts;
#[path = "routing/router.rs"]
mod router;
#[path = "routing/values.rs"]
mod values;
#[path = "routing/withdrawals.rs"]
mod withdrawals;

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let suite = fixture::suite()?;
    // The tests of `withdrawals` come last, because their last test removes a node permanently.
    let tests = [values::tests, chart::tests, restarts::tests, host_daemons::tests, withdrawals::tests];
    let tests = tests.into_iter().flat_map(|tests| tests(&suite)).collect();
    Ok(suite.run(tests))
}
