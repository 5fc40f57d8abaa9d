//! Starts several nodes without kubelets on one control plane. The operator and one agent per node are real processes.
//! Tests execute the plugin themselves, and a pod is a network namespace without a process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use xtask::artifacts::Artifacts;

use crate::control_plane::{ControlPlane, ControlPlaneOptions, Process, ScratchDir, install_crds};
use crate::network::{Namespace, TcpProxy};
use crate::single_node::{Plugin, RunDirectory, Sandbox, status};
use crate::wait::{check, wait_until};

/// The agents' user at the API server.
const AGENT_USER: &str = "bobbin-agent";
/// The address at which an agent serves its metrics, in the network namespace of the node.
const METRICS: &str = "127.0.0.1:9180";
/// How long an agent or the operator may take for work that is not urgent.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The nodes `n1`, `n2` and so on, and their control plane. Dropping this value ends every process and namespace.
pub struct BareNodes {
    nodes: Vec<BareNode>,
    operator: Option<Process>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The administrator's client.
    pub client: kube::Client,
    artifacts: Artifacts,
    scratch: ScratchDir,
}

/// A node: a network namespace and an agent.
pub struct BareNode {
    /// The name of the Node object.
    pub name: String,
    /// The node's network namespace.
    pub namespace: Namespace,
    /// The proxy between the agent and the API server.
    pub proxy: TcpProxy,
    agent: Option<Process>,
    agent_flags: Vec<String>,
    artifacts: Artifacts,
    directory: PathBuf,
    _run: RunDirectory,
}

impl BareNodes {
    /// Starts the control plane, the operator, and `count` nodes whose agents run with these flags. Creates no pool.
    pub async fn start(count: u8, agent_flags: &[&str]) -> Result<Self> {
        let artifacts = Artifacts::find()?;
        let scratch = ScratchDir::make("bobbin-bare-nodes-")?;
        std::fs::create_dir(scratch.path().join("bin"))?;
        for name in ["bobbin-agent", "bobbin-operator"] {
            std::os::unix::fs::symlink(artifacts.all(), scratch.path().join("bin").join(name))?;
        }
        let mut options = ControlPlaneOptions::default();
        options.add_token(AGENT_USER, AGENT_USER, &["system:masters"]);
        let control_plane = ControlPlane::start(options).await?;
        let client = control_plane.client().await?;
        install_crds(&client).await?;
        let mut this = Self { nodes: Vec::new(), operator: None, control_plane, client, artifacts, scratch };
        this.start_operator()?;
        for number in 1..=count {
            let node = this.make_node(number, agent_flags).await?;
            this.nodes.push(node);
        }
        Ok(this)
    }

    /// The node with this number. The numbers begin with 1.
    pub fn node(&self, number: usize) -> &BareNode {
        &self.nodes[number - 1]
    }

    /// Like [`Self::node`], for tests that start or end the node's agent.
    pub fn node_mut(&mut self, number: usize) -> &mut BareNode {
        &mut self.nodes[number - 1]
    }

    /// Starts the operator.
    pub fn start_operator(&mut self) -> Result<()> {
        let kubeconfig = format!("--kubeconfig={}", self.control_plane.admin_kubeconfig()?.display());
        let flags = [
            "--namespace=default",
            "--identity=operator-1",
            "--no-leader-election",
            "--status-interval=1s",
            &kubeconfig,
        ];
        let (program, log) =
            (self.scratch.path().join("bin/bobbin-operator"), self.scratch.path().join("operator.log"));
        self.operator = Some(Process::start(&program, None, &log, flags)?);
        Ok(())
    }

    /// Creates or changes a pool, and waits until the operator has carved at least `blocks` blocks of the pool.
    pub async fn apply_pool(&self, name: &str, spec: &Value, blocks: usize) -> Result<()> {
        let pools: Api<AddressPool> = Api::all(self.client.clone());
        let pool = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec});
        pools.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(pool)).await?;
        wait_until(&format!("the pool {name} has {blocks} blocks"), WAIT_TIMEOUT, || async {
            let seen = self.blocks(name).await?.len();
            Ok(check(seen >= blocks, || format!("{seen} blocks")))
        })
        .await
        .with_context(|| format!("the end of the operator's log:\n{}", self.operator_log_tail()))
    }

    /// The blocks of a pool.
    pub async fn blocks(&self, pool: &str) -> Result<Vec<AddressBlock>> {
        let of_pool = ListParams::default().fields(&format!("spec.poolName={pool}"));
        Ok(Api::all(self.client.clone()).list(&of_pool).await?.items)
    }

    /// All assignments.
    pub async fn assignments(&self) -> Result<Vec<IPAssignment>> {
        Ok(Api::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// The messages of all events with this reason.
    pub async fn events(&self, reason: &str) -> Result<Vec<String>> {
        let events: Api<Event> = Api::all(self.client.clone());
        let with_reason = ListParams::default().fields(&format!("reason={reason}"));
        Ok(events.list(&with_reason).await?.items.into_iter().filter_map(|event| event.note).collect())
    }

    /// The last lines of all logs, for a person who debugs a failed test.
    pub fn logs(&self) -> String {
        let agents = self.nodes.iter().map(|node| format!("agent of {}:\n{}\n", node.name, node.agent_log_tail()));
        agents.collect::<String>() + "operator:\n" + &self.operator_log_tail()
    }

    /// The last lines of the operator's log.
    pub fn operator_log_tail(&self) -> String {
        self.operator.as_ref().map_or_else(String::new, Process::log_tail)
    }

    async fn make_node(&self, number: u8, agent_flags: &[&str]) -> Result<BareNode> {
        let name = format!("n{number}");
        let directory = self.scratch.path().join(&name);
        std::fs::create_dir(&directory)?;
        for name in ["cni-bin", "cni-conf", "netns"] {
            std::fs::create_dir(directory.join(name))?;
        }
        std::fs::write(directory.join("boot-id"), "11111111-1111-1111-1111-111111111111\n")?;
        let namespace = Namespace::make()?;
        let address = format!("10.100.0.{number}");
        namespace.ip(&format!(
            "link add uplink mtu 1500 type veth peer name nowhere\naddr add {address}/24 dev uplink\n\
             link set uplink up\nlink set nowhere up\nroute add default via 10.100.0.254\n"
        ))?;
        let proxy = TcpProxy::start(&namespace, self.control_plane.url().trim_start_matches("https://").parse()?)?;
        let mut node = BareNode {
            proxy,
            agent: None,
            agent_flags: agent_flags.iter().map(|&flag| flag.to_owned()).collect(),
            artifacts: self.artifacts.clone(),
            _run: RunDirectory::make(directory.join("run"))?,
            namespace,
            directory,
            name,
        };
        node.write_kubeconfig(&self.control_plane)?;
        self.register(&node.name, &address).await?;
        node.start_agent().await?;
        Ok(node)
    }

    /// Creates the Node object, as a kubelet does when it starts.
    async fn register(&self, name: &str, address: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        nodes.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

impl BareNode {
    fn write_kubeconfig(&self, control_plane: &ControlPlane) -> Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "agent",
            "clusters": [{"name": "agent", "cluster": {
                "server": format!("https://{}", self.proxy.address()),
                "certificate-authority": control_plane.certificates().file("ca.crt"),
            }}],
            "users": [{"name": "agent", "user": {"token": AGENT_USER}}],
            "contexts": [{"name": "agent", "context": {"cluster": "agent", "user": "agent"}}],
        });
        Ok(std::fs::write(self.path("kubeconfig"), kubeconfig.to_string())?)
    }

    /// Starts the agent, and waits until it answers STATUS with success.
    pub async fn start_agent(&mut self) -> Result<()> {
        let flags = [
            format!("--node-name={}", self.name),
            format!("--kubeconfig={}", self.path("kubeconfig").display()),
            format!("--run-dir={}", self.path("run").display()),
            format!("--boot-id-path={}", self.path("boot-id").display()),
            format!("--cni-bin-dir={}", self.path("cni-bin").display()),
            format!("--cni-conf-dir={}", self.path("cni-conf").display()),
            format!("--shim-path={}", self.artifacts.shim().display()),
            format!("--metrics-address={METRICS}"),
            "--install".to_owned(),
        ];
        let program = self.directory.with_file_name("bin").join("bobbin-agent");
        let flags = flags.iter().chain(&self.agent_flags);
        self.agent = Some(Process::start(&program, Some(&self.namespace.path()), &self.path("agent.log"), flags)?);
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while let Err(says) = status::of_agent(&self.path("run/agent.sock"), &self.plugin().conf) {
            self.agent.as_mut().context("the agent was not started")?.must_be_running()?;
            if Instant::now() > deadline {
                bail!(
                    "the agent of node {} is not ready: {says}; the end of its log:\n{}",
                    self.name,
                    self.agent_log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// The last lines of the agent's log.
    pub fn agent_log_tail(&self) -> String {
        self.agent.as_ref().map_or_else(String::new, Process::log_tail)
    }

    /// The path of a file in the directory for this node's files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Bobbin's plugin with this node's configuration.
    pub fn plugin(&self) -> Plugin {
        Plugin {
            namespace: self.namespace.clone(),
            executable: self.artifacts.shim().to_owned(),
            path: self.path("cni-bin"),
            environment: vec![("BOBBIN_SOCKET".to_owned(), self.path("run/agent.sock").display().to_string())],
            conf: json!({"cniVersion": "1.1.0", "name": "bobbin", "type": "bobbin"}),
        }
    }

    /// Creates a sandbox without a Pod object. An ADD for the sandbox allocates from the pool `default`.
    pub fn sandbox(&self) -> Result<Sandbox> {
        Sandbox::make(&self.path("netns"))
    }

    /// Creates a sandbox, and calls ADD for it. Fails if the ADD fails.
    pub fn add(&self) -> Result<Sandbox> {
        let pod = self.sandbox()?;
        let result = self.plugin().call(&pod.call("ADD"))?.ok();
        result.with_context(|| {
            format!("ADD failed on node {}; the end of the agent's log:\n{}", self.name, self.agent_log_tail())
        })?;
        Ok(pod)
    }

    /// Calls DEL for a sandbox. Fails if the DEL fails.
    pub fn del(&self, pod: &Sandbox) -> Result<()> {
        let result = self.plugin().call(&pod.call("DEL"))?.ok();
        result.with_context(|| {
            format!("DEL failed on node {}; the end of the agent's log:\n{}", self.name, self.agent_log_tail())
        })?;
        Ok(())
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let page = self.namespace.run(metrics_page)??;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("there is no metric {name}"))?.trim().parse()?)
    }
}

fn metrics_page() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS.parse::<SocketAddr>()?)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
