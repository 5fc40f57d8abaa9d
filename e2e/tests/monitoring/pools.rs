//! Alerts about a pool that pods fill.

use anyhow::Result;
use bobbin_e2e::single_node::Sandbox;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{Monitored, OPERATOR};
use crate::recording::{Alert, Recording};
use crate::scrape::{Scrape, Target};

/// The pool that the test fills. It has 4 blocks of 8 addresses.
const POOL: &str = "filled";
/// The operator that leads at the end of the test.
const NEXT_LEADER: Target = Target { job: OPERATOR.job, instance: "n2:9118" };

pub fn tests(suite: &Suite<Monitored>) -> Vec<Trial> {
    let sentence = "BobbinPoolFillingUp, BobbinPoolFullWithinADay, BobbinPoolBlocksExhausted and BobbinPoolAlmostFull fire while pods fill a pool, also under a new leader";
    vec![suite.test(sentence, filled)]
}

async fn filled(monitored: &mut Monitored) -> Result<()> {
    let node = &monitored.node;
    let spec = json!({"subnets": [{"ipv4": "10.70.0.0/27"}], "blockSizeBits": 3, "cooldownSeconds": 0});
    node.apply_pool(POOL, spec).await?;
    node.await_free_blocks(POOL).await?;
    let mut pods = Vec::new();
    let empty = fill(monitored, &mut pods, 0).await?;
    let quarter = fill(monitored, &mut pods, 8).await?;
    let half = fill(monitored, &mut pods, 16).await?;
    let above_80 = fill(monitored, &mut pods, 26).await?;
    let above_95 = fill(monitored, &mut pods, 31).await?;
    let of_pool =
        |names: &[&'static str]| -> Vec<Alert> { names.iter().map(|name| Alert::OfPool(name, POOL)).collect() };
    let filling = ["BobbinPoolFillingUp", "BobbinPoolFullWithinADay", "BobbinPoolBlocksExhausted"];
    let almost_full = [&filling[..], &["BobbinPoolAlmostFull"]].concat();
    Recording::default()
        .repeat(60, &empty, &[])
        .repeat(120, &quarter, &[])
        .repeat(120, &half, &[])
        .repeat(60, &above_80, &of_pool(&filling))
        .repeat(60, &above_95, &of_pool(&almost_full))
        .evaluate(monitored)?;
    // The leader changes while the pool grows. The series of each single leader stay constant, so the alert must
    // combine them.
    Recording::default()
        .repeat(360, &quarter, &[])
        .repeat(60, &above_80.moved(OPERATOR, NEXT_LEADER), &of_pool(&filling))
        .evaluate(monitored)
}

/// Adds pods until `count` addresses of the pool are assigned, and returns a scrape of this state.
async fn fill(monitored: &Monitored, pods: &mut Vec<Sandbox>, count: usize) -> Result<Scrape> {
    while pods.len() < count {
        let pod = monitored.node.kube_pod("default", &format!("{POOL}-{}", pods.len()), Some(POOL)).await?;
        monitored.node.add(&pod)?;
        pods.push(pod);
    }
    let labels = ["pool=\"filled\"", "family=\"ipv4\"", "state=\"assigned\""];
    let expected = f64::from(u32::try_from(count)?);
    let is_expected = |value: f64| (value - expected).abs() < f64::EPSILON;
    monitored.await_metric("bobbin_operator_pool_addresses", &labels, is_expected).await
}
