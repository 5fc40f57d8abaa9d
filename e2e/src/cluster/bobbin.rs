//! Bobbin on the cluster: installed, upgraded and removed by Helm, as a user does it.

use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use xtask::image::BOBBIN;

/// The chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/bobbin");
/// Its namespace.
pub const NAMESPACE: &str = "bobbin-system";

impl Cluster {
    /// `helm upgrade --install` of the chart with values (`key=value`) on top of the test cluster's own, and waits until it runs.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        self.roll_out(values)?;
        self.await_nodes_ready().await
    }

    /// The same without waiting for the nodes, which are not Ready while Bobbin leaves them.
    pub fn roll_out(&self, values: &[&str]) -> Result<()> {
        let (repository, tag) = BOBBIN.rsplit_once(':').unwrap_or((BOBBIN, ""));
        let own = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "image.pullPolicy=Never".to_owned(),
            "network.routing=direct".to_owned(),
            // The nodes share one kernel, so each has a boot ID in a file.
            "agent.extraArgs[0]=--boot-id-path=/host/opt/cni/bin/boot-id".to_owned(),
        ];
        let mut words: Vec<&str> = [
            "upgrade",
            "--install",
            // The tests shorten the times, below what the schema lets a cluster have.
            "--skip-schema-validation",
            "bobbin",
            CHART,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "120s",
        ]
        .into();
        for value in own.iter().map(String::as_str).chain(values.iter().copied()) {
            words.extend(["--set", value]);
        }
        self.run_program("helm", &words).map(drop)
    }

    /// `helm uninstall`, and waits until its pods are gone.
    pub async fn uninstall(&self) -> Result<()> {
        self.helm(["uninstall", "bobbin", "--namespace", NAMESPACE, "--wait", "--timeout", "120s"])?;
        self.await_no_pods(NAMESPACE, "", Duration::from_mins(1)).await
    }
}
