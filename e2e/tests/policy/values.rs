//! Chart values of earlier versions: Helm refuses each with a sentence that names the new value.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

use crate::fixture::{NAMESPACE, PolicyFixture};

/// Values of earlier versions, each with its name of today and a setting that is valid today.
const RENAMED: [(&str, &str, &str); 3] = [
    ("agent.holdAdd=30s", "agent.addTimeout", "30s"),
    ("agent.sweepInterval=60s", "agent.staleCheckInterval", "60s"),
    ("operator.nodeGoneSeconds=300", "operator.nodeGracePeriod", "5m"),
];

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![suite.test("a chart value of an earlier version is refused with its new name", renamed_values)]
}

async fn renamed_values(_: &mut PolicyFixture) -> Result<()> {
    for (old, new, setting) in RENAMED {
        let refused = template(&[old])?;
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success(), "helm accepts {old}");
        let name = old.split('=').next().unwrap_or_default();
        ensure!(
            sentence.contains(new) && sentence.contains(&format!("--set {name}=null")),
            "the refusal of {old} does not name {new} and how to unset the old value: {sentence}"
        );
        let accepted = template(&[&format!("{name}=null"), &format!("{new}={setting}")])?;
        ensure!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    }
    Ok(())
}

fn template(values: &[&str]) -> Result<Output> {
    let mut helm = chart::template(NAMESPACE)?;
    for value in values {
        helm.args(["--set", value]);
    }
    helm.output().context("helm can't be started")
}
