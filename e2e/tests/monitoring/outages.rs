//! Alerts about an API server that an agent can't reach, and about a cluster without a leading operator.

use anyhow::Result;
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

use crate::fixture::{AGENT, Monitored};
use crate::recording::{Alert, Recording};

/// Between the two scrapes of an outage, the age of the oldest unconfirmed assignment grows by at least this many
/// seconds.
const OUTAGE_SECONDS: f64 = 3.0;

pub fn tests(suite: &Suite<Monitored>) -> Vec<Trial> {
    vec![
        suite.test(
            "BobbinAPIServerUnreachable, BobbinAssignmentsUnconfirmed and BobbinResyncStale fire while an agent is cut off",
            cut_off,
        ),
        suite.test("BobbinOperatorWithoutLeader fires when no operator runs", no_operator),
    ]
}

async fn cut_off(monitored: &mut Monitored) -> Result<()> {
    const AGE: &str = "bobbin_agent_oldest_unconfirmed_assignment_age_seconds";
    let (running, _) = monitored.running_pod("before-the-outage", None).await?;
    monitored.await_calm().await?;
    let before = monitored.scrape()?;
    monitored.node.proxy.set(NetworkFault::Refuse);
    let pod = monitored.node.sandbox()?;
    monitored.node.add(&pod)?;
    let early = monitored.await_metric(AGE, &[], |age| age > 0.0).await?;
    let age = early.value(AGE, &[]).unwrap_or_default();
    let late = monitored.await_metric(AGE, &[], |later| later >= age + OUTAGE_SECONDS).await?;
    let alerts = ["BobbinAPIServerUnreachable", "BobbinAssignmentsUnconfirmed", "BobbinResyncStale"];
    Recording::default()
        .repeat(10, &before, &[])
        .last(120, [&early, &late], AGENT, &alerts.map(|name| Alert::OfInstance(name, AGENT)))
        .evaluate(monitored)?;
    monitored.node.proxy.set(NetworkFault::None);
    monitored.await_calm().await?;
    monitored.node.del(&pod)?;
    drop(pod);
    monitored.end_pod("before-the-outage", running).await
}

async fn no_operator(monitored: &mut Monitored) -> Result<()> {
    let before = monitored.await_metric("bobbin_operator_is_leader", &[], |value| value > 0.0).await?;
    monitored.node.stop_operator();
    let after = monitored.scrape()?;
    Recording::default()
        .repeat(10, &before, &[])
        .repeat(15, &after, &[Alert::Of("BobbinOperatorWithoutLeader")])
        .evaluate(monitored)?;
    monitored.node.start_operator()?;
    monitored.await_calm().await
}
