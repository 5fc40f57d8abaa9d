//! The chart keeps the agent away from Nodes with the label `bobbin.dev/agent=remove`, even if the user sets an
//! affinity.

use anyhow::{Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::suite::{NoFixture, Suite};
use libtest_mimic::Trial;

/// A node affinity with two alternatives. Kubernetes requires a Node to match only one of them.
const AFFINITY: &str = r#"agent.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
    {"matchExpressions":[{"key":"example.com/rack","operator":"Exists"}]},
    {"matchExpressions":[{"key":"example.com/lab","operator":"Exists"}]}]}}}"#;
/// The expression for Nodes without the label `bobbin.dev/agent=remove`, as YAML without indentation and line breaks.
const STAYS_AWAY: &str = "- key: bobbin.dev/agentoperator: NotInvalues:- remove";

pub fn tests(suite: &Suite<NoFixture>) -> Vec<Trial> {
    vec![suite.test("no affinity of the user brings the agent to a Node that is labelled for removal", affinity)]
}

async fn affinity(_: &mut NoFixture) -> Result<()> {
    for (values, alternatives) in [(&[][..], 1), (&["--set-json", AFFINITY], 2)] {
        let rendered = agents(values)?;
        let [first, second] = &rendered[..] else { anyhow::bail!("the chart has {} DaemonSets", rendered.len()) };
        let found = first.matches(STAYS_AWAY).count();
        ensure!(found == alternatives, "{found} of {alternatives} alternatives keep the agent away:\n{first}");
        ensure!(
            second.contains("nodeSelector:bobbin.dev/agent: remove") && second.contains("--mode=remove"),
            "the second DaemonSet does not remove Bobbin from the labelled Nodes:\n{second}"
        );
    }
    let rendered = agents(&["--set", "agent.mode=remove"])?;
    ensure!(
        rendered.len() == 1 && !rendered[0].contains(STAYS_AWAY),
        "with agent.mode=remove, one DaemonSet must run on all nodes"
    );
    Ok(())
}

/// The DaemonSets of the rendered chart, without indentation and line breaks.
fn agents(values: &[&str]) -> Result<Vec<String>> {
    let helm = chart::template("bobbin-system")?.arg("--skip-schema-validation").args(values).output()?;
    ensure!(helm.status.success(), "helm template failed: {}", String::from_utf8_lossy(&helm.stderr));
    let text = String::from_utf8_lossy(&helm.stdout).into_owned();
    let objects = text.split("\n---\n").filter(|object| object.contains("\nkind: DaemonSet\n"));
    Ok(objects
        .filter(|object| object.contains("\n  name: bobbin-agent"))
        .map(|object| object.lines().map(str::trim).collect())
        .collect())
}
