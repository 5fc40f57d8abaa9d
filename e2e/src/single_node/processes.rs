//! The operator and the agent of a single node: starting and killing their processes, their flags and logs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use super::{NODE, OPERATOR_USER, SingleNode, WAIT_TIMEOUT, status};
use crate::control_plane::Process;

impl SingleNode {
    /// Starts the operator.
    pub fn start_operator(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.admin_kubeconfig()?;
        self.start_operator_with(&kubeconfig)
    }

    /// Starts the operator behind the API proxy, as the user [`OPERATOR_USER`].
    pub fn start_operator_behind_proxy(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.kubeconfig_through(self.api()?.address(), OPERATOR_USER)?;
        self.start_operator_with(&kubeconfig)
    }

    pub(super) fn start_operator_with(&mut self, kubeconfig: &Path) -> Result<()> {
        let mut arguments: Vec<String> =
            ["--namespace=bobbin-system", "--identity=operator-1", "--status-interval=1s"].map(str::to_owned).to_vec();
        if !self.options.leader_election {
            arguments.push("--no-leader-election".to_owned());
        }
        arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
        arguments.extend(self.options.operator.iter().cloned());
        let program = self.path("bin/bobbin-operator");
        self.operator = Some(Process::start(&program, None, &self.path("operator.log"), arguments)?);
        Ok(())
    }

    /// Kills the operator, and starts it again with these additional flags.
    pub fn restart_operator(&mut self, flags: &[&str]) -> Result<()> {
        self.stop_operator();
        self.options.operator = flags.iter().map(|&flag| flag.to_owned()).collect();
        self.start_operator()
    }

    /// Kills the operator.
    pub fn stop_operator(&mut self) {
        self.operator = None;
    }

    /// Starts the agent and waits until STATUS succeeds.
    pub async fn start_agent(&mut self) -> Result<()> {
        self.start_agent_only()?;
        self.await_agent(WAIT_TIMEOUT).await
    }

    /// Starts the agent, and does not wait until it is ready.
    pub fn start_agent_only(&mut self) -> Result<()> {
        self.agent = Some(self.another_agent("agent.log")?);
        Ok(())
    }

    /// Kills the node's agent. From then on, the node's agent is `agent`, which the test has already started.
    pub fn replace_agent(&mut self, agent: Process) {
        self.agent = Some(agent);
    }

    /// Starts an agent with this node's flags, even if an agent is already running. The agent's output goes to the file
    /// `log` in this node's directory.
    pub fn another_agent(&self, log: &str) -> Result<Process> {
        let mut arguments = vec![
            format!("--node-name={NODE}"),
            format!("--kubeconfig={}", self.path("agent.kubeconfig").display()),
            format!("--run-dir={}", self.run_dir().display()),
            format!("--boot-id-path={}", self.path("boot-id").display()),
            "--install".to_owned(),
            format!("--cni-bin-dir={}", self.path("cni-bin").display()),
            format!("--cni-conf-dir={}", self.path("cni-conf").display()),
            format!("--shim-path={}", self.artifacts.shim().display()),
        ];
        let name = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
        let replaced: Vec<String> = self.agent_flags.iter().map(name).collect();
        arguments.extend(self.options.agent.iter().cloned());
        arguments.retain(|flag| !replaced.contains(&name(flag)));
        arguments.extend(self.agent_flags.iter().cloned());
        let netns = self.namespace.path();
        Process::start(&self.path("bin/bobbin-agent"), Some(&netns), &self.path(log), arguments)
    }

    /// Waits until the agent itself answers STATUS with success. An answer of the plugin is not enough, because the
    /// plugin can answer STATUS with success even while no agent is running.
    pub async fn await_agent(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            self.agent.as_mut().context("the agent was not started")?.must_be_running()?;
            // Ask at the agent's socket and not through the plugin. Once an agent has been ready, the plugin answers STATUS
            // with success even while no agent is running.
            let Err(says) = status::of_agent(&self.run_dir().join("agent.sock"), &self.plugin().conf) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                bail!(
                    "the agent was not ready within {} s: STATUS says {}; the end of its log:\n{}",
                    timeout.as_secs(),
                    says,
                    self.agent_log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// If the agent has ended, fails with the end of the agent's log.
    pub fn agent_must_run(&mut self) -> Result<()> {
        self.agent.as_mut().context("the agent was not started")?.must_be_running()
    }

    /// The agent's resident memory, in KiB.
    pub fn agent_memory(&self) -> Result<u64> {
        let pid = self.agent.as_ref().context("the agent was not started")?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("the agent's /proc/PID/status has no line VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("the line VmRSS has no number")?.parse()?)
    }

    /// The agent's process.
    pub fn agent_pid(&self) -> Result<Pid> {
        Ok(self.agent.as_ref().context("the agent was not started")?.pid())
    }

    /// The last lines of the agent's log.
    pub fn agent_log_tail(&self) -> String {
        self.agent.as_ref().map_or_else(String::new, Process::log_tail)
    }

    /// The output of all agents that [`Self::start_agent`] and [`Self::start_agent_only`] have started on this node.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Sets flags for all agents that the test starts from now on. These flags replace other flags with the same name.
    pub fn set_agent_flags(&mut self, flags: &[&str]) {
        self.agent_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }
}
