//! Installs, upgrades and removes Bobbin on the test cluster with Helm, as a user does.

use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use xtask::image::{BOBBIN, TOOLS};

/// The directory of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/bobbin");
/// The namespace that the chart is installed in.
pub const NAMESPACE: &str = "bobbin-system";

impl Cluster {
    /// Installs or upgrades the chart and waits until Bobbin is ready. `values` (`key=value`) extend and override the
    /// test cluster's values.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        self.roll_out(values)?;
        self.await_nodes_ready().await
    }

    /// Like [`Self::install`], but waits only for Bobbin's pods, and not for Ready nodes. If the agent uninstalls
    /// Bobbin from a node, the node is not Ready afterwards.
    pub fn roll_out(&self, values: &[&str]) -> Result<()> {
        let (repository, tag) = BOBBIN.rsplit_once(':').unwrap_or((BOBBIN, ""));
        let (tools, tools_tag) = TOOLS.rsplit_once(':').unwrap_or((TOOLS, ""));
        let mut own = vec![
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "image.pullPolicy=Never".to_owned(),
            "network.routing=direct".to_owned(),
            format!("test.image.repository={tools}"),
            format!("test.image.tag={tools_tag}"),
            "test.image.pullPolicy=Never".to_owned(),
            // All nodes share the host's kernel and boot ID, so each node keeps a separate boot ID in a file.
            "agent.extraArgs[0]=--boot-id-path=/opt/cni/bin/boot-id".to_owned(),
        ];
        if let Some(proxy) = &self.api_proxy {
            own.push(format!("apiServer.host={}", proxy.address().ip()));
            own.push(format!("apiServer.port={}", proxy.address().port()));
        }
        let mut words: Vec<&str> = [
            "upgrade",
            "--install",
            // The tests use shorter times than the chart's schema allows, so Helm must not validate the values.
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

    /// Runs `helm uninstall` and waits until Bobbin's pods are gone.
    pub async fn uninstall(&self) -> Result<()> {
        self.helm(["uninstall", "bobbin", "--namespace", NAMESPACE, "--wait", "--timeout", "120s"])?;
        self.await_no_pods(NAMESPACE, "", Duration::from_mins(1)).await
    }
}
