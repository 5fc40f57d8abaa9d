//! CNI calls on a single node, through Bobbin's plugin and through cnitool.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Answer, Call, Plugin, Sandbox, SingleNode};

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

    /// Calls ADD for a pod, which must succeed, and returns the result.
    pub fn add(&self, pod: &Sandbox) -> Result<Value> {
        let result = self.call(&pod.call("ADD"))?.ok();
        result.with_context(|| format!("ADD failed; the end of the agent's log:\n{}", self.agent_log_tail()))
    }

    /// Calls DEL for a pod, which must succeed.
    pub fn del(&self, pod: &Sandbox) -> Result<()> {
        let answer = self.call(&pod.call("DEL"))?;
        answer.ok().with_context(|| format!("DEL failed; the end of the agent's log:\n{}", self.agent_log_tail()))?;
        Ok(())
    }

    /// Runs cnitool with the configuration that the agent installed, or with the configuration in `conf_dir` if it is
    /// given.
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
