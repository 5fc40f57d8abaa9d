//! CNI calls on a single node, through Bobbin's plugin and through cnitool.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Answer, CONVERGENCE_TIMEOUT, Call, Plugin, Sandbox, SingleNode};
use crate::wait::{check, wait_until};

impl SingleNode {
    /// Bobbin's plugin with this node's configuration.
    pub fn plugin(&self) -> Plugin {
        Plugin {
            namespace: self.namespace.clone(),
            executable: self.artifacts.shim().to_owned(),
            path: self.path("cni-bin"),
            environment: vec![("BOBBIN_SOCKET".to_owned(), self.run_dir().join("agent.sock").display().to_string())],
            conf: json!({"cniVersion": "1.1.0", "name": "bobbin", "type": "bobbin"}),
        }
    }

    /// Executes Bobbin's plugin in the node's network namespace.
    pub fn call(&self, call: &Call) -> Result<Answer> {
        self.plugin().call(call)
    }

    /// Creates a sandbox without a Pod object. An ADD for the sandbox allocates from the pool `default`.
    pub fn sandbox(&self) -> Result<Sandbox> {
        Sandbox::make(&self.path("netns"))
    }

    /// Calls ADD for a pod and returns the result. Fails if the ADD fails.
    pub fn add(&self, pod: &Sandbox) -> Result<Value> {
        let result = self.call(&pod.call("ADD"))?.ok();
        result.with_context(|| format!("ADD failed; the end of the agent's log:\n{}", self.agent_log_tail()))
    }

    /// Calls DEL for a pod. Fails if the DEL fails.
    pub fn del(&self, pod: &Sandbox) -> Result<()> {
        let answer = self.call(&pod.call("DEL"))?;
        answer.ok().with_context(|| format!("DEL failed; the end of the agent's log:\n{}", self.agent_log_tail()))?;
        Ok(())
    }

    /// Calls DEL for these pods, and waits until no assignment, link or checkpoint of any pod is left.
    pub async fn remove_pods(&self, pods: Vec<Sandbox>) -> Result<()> {
        for pod in &pods {
            self.del(pod)?;
        }
        drop(pods);
        self.await_empty().await
    }

    /// Waits until no assignment, link or checkpoint of any pod is left.
    pub async fn await_empty(&self) -> Result<()> {
        self.await_assignments_of(&[]).await?;
        wait_until("no link and no checkpoint of an attachment is left", CONVERGENCE_TIMEOUT, || async {
            let links = self.attachments()?.len();
            let checkpoints = std::fs::read_dir(self.run_dir().join("attachments"))?.count();
            Ok(check(links == 0 && checkpoints == 0, || {
                format!("{links} links and {checkpoints} checkpoints are left")
            }))
        })
        .await
    }

    /// Waits until exactly these pods have assignments.
    pub async fn await_assignments_of(&self, pods: &[Sandbox]) -> Result<()> {
        let ids: Vec<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();
        self.await_assignments(&ids, CONVERGENCE_TIMEOUT).await
    }

    /// Runs cnitool with the CNI configuration in `conf_dir`. If `conf_dir` is `None`, uses the configuration that the
    /// agent installed.
    pub fn cnitool(&self, verb: &str, netns: &Path, conf_dir: Option<&Path>) -> Result<Answer> {
        self.cnitool_with(verb, netns, conf_dir, &[])
    }

    /// Like [`Self::cnitool`], but with these environment variables, for example `CNI_ARGS` or `CAP_ARGS`.
    pub fn cnitool_with(
        &self,
        verb: &str,
        netns: &Path,
        conf_dir: Option<&Path>,
        environment: &[(&str, &str)],
    ) -> Result<Answer> {
        let tool = self.programs.path("cnitool")?;
        let conf_dir = conf_dir.map_or_else(|| self.path("cni-conf"), Path::to_owned);
        let mut command = self.namespace.command(tool);
        command.args([verb, "bobbin"]).arg(netns).env("NETCONFPATH", conf_dir).env("CNI_PATH", self.path("cni-bin"));
        command.env("BOBBIN_SOCKET", self.run_dir().join("agent.sock"));
        command.envs(environment.iter().copied());
        let start = Instant::now();
        let output = command.output().context("cnitool did not start")?;
        Ok(Answer {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        })
    }
}
