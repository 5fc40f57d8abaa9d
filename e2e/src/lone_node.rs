//! One node without kubelet: a real etcd and API server, the operator and the agent as processes, the shim executed as containerd
//! does it, pods that are bare network namespaces. Conformance and agent tests, and the bench, stand on it.
//!
//! The agent reaches the API server through a [`Proxy`] that a test can spoil.

mod echo;
mod faults;
mod objects;
mod plugin;
mod pod;
mod reference;
mod status;
mod turns;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub use echo::EchoServer;
pub use faults::{Fault, Faults};
pub use plugin::{Answer, Call, CniError, Plugin};
pub use pod::{NetnsMount, Pod, fresh_id};
pub use turns::Turns;
pub use view::{Attachment, ip_json};

use crate::api_proxy::ApiProxy;
use crate::control_plane::{ControlPlane, Options, Running, Scratch};
use crate::namespace::Namespace;
use crate::product::Product;
use crate::programs::Programs;
use crate::proxy::Proxy;

/// The name of the Node object.
pub const NODE: &str = "n1";
/// The user that the agent is for the API server, so that its calls can be told in the audit log.
pub const AGENT_USER: &str = "bobbin-agent";
/// The node's addresses.
pub const NODE_IPV4: &str = "10.100.0.1";
/// See [`NODE_IPV4`].
pub const NODE_IPV6: &str = "fd00:100::1";
/// Addresses behind the node's uplink.
pub const FABRIC_IPV4: &str = "10.100.0.254";
/// See [`FABRIC_IPV4`].
pub const FABRIC_IPV6: &str = "fd00:100::fe";
/// How long agent or operator may take for what they do at leisure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a test chooses.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Whether etcd waits for the disk; measurements do.
    pub fsync: bool,
    /// More flags of the agent.
    pub agent: Vec<String>,
    /// More flags of the operator.
    pub operator: Vec<String>,
    /// Whether an [`ApiProxy`] is behind the [`Proxy`], for faults of single requests and watches ([`LoneNode::api`]).
    pub api_proxy: bool,
}

/// The node and all it needs. Dropped: every process ends and every namespace goes.
pub struct LoneNode {
    agent: Option<Running>,
    operator: Option<Running>,
    /// What the agent reaches the API server through.
    pub proxy: Proxy,
    api_proxy: Option<ApiProxy>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// A client of the administrator, not through the proxy.
    pub client: kube::Client,
    /// The node's namespace.
    pub namespace: Namespace,
    /// What is behind the uplink.
    pub fabric: Namespace,
    /// What is executed.
    pub product: Product,
    /// Where cnitool and the reference plugins are.
    pub programs: Programs,
    _run: RunDirectory,
    scratch: Scratch,
    choice: Choice,
    agent_flags: Vec<String>,
}

/// The agent's `--run-dir`: in memory, as `/run` is.
struct RunDirectory(PathBuf);

impl RunDirectory {
    fn make(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path)?;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("no tmpfs can be mounted at {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // The mount is in this process's own mount namespace and goes with it in any case.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Gives this process, before it has a second thread, mounts of its own: pods' namespaces have paths, and cnitool a cache, that are
/// gone with the process.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace can be made: run as root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("mounts can't be made private")?;
    std::fs::create_dir_all("/var/lib/cni").context("/var/lib/cni can't be made")?;
    mount(Some("tmpfs"), "/var/lib/cni", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("no tmpfs can be mounted")
}

impl LoneNode {
    /// Starts everything but the agent; the operator runs, and there is no pool.
    pub async fn start(choice: Choice) -> Result<Self> {
        let product = Product::find()?;
        let scratch = Scratch::make("bobbin-lone-node-")?;
        let run = RunDirectory::make(scratch.path().join("run"))?;
        for name in ["bin", "cni-bin", "cni-conf", "netns", "host-local"] {
            std::fs::create_dir(scratch.path().join(name))?;
        }
        for name in ["bobbin-agent", "bobbin-operator"] {
            std::os::unix::fs::symlink(product.all(), scratch.path().join("bin").join(name))?;
        }
        std::fs::write(scratch.path().join("boot-id"), "11111111-1111-1111-1111-111111111111\n")?;

        let mut options = Options { fsync: choice.fsync, audit: true, ..Options::default() };
        options.add_token(AGENT_USER, AGENT_USER, &["system:masters"]);
        // There is no controller manager to make service accounts.
        options.apiserver_arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
        let control_plane = ControlPlane::start(options).await?;
        let client = control_plane.client().await?;

        let (namespace, fabric) = (Namespace::make()?, Namespace::make()?);
        wire(&namespace, &fabric)?;
        let api_proxy = if choice.api_proxy { Some(ApiProxy::start(&control_plane, AGENT_USER).await?) } else { None };
        let target = match &api_proxy {
            Some(api_proxy) => api_proxy.address(),
            None => control_plane.url().trim_start_matches("https://").parse()?,
        };
        let proxy = Proxy::start(&namespace, target)?;
        let programs = Programs::find()?;
        let mut this = Self {
            agent: None,
            operator: None,
            proxy,
            api_proxy,
            control_plane,
            client,
            namespace,
            fabric,
            product,
            programs,
            _run: run,
            scratch,
            choice,
            agent_flags: Vec::new(),
        };
        this.write_kubeconfig()?;
        this.install_kinds().await?;
        this.make_node().await?;
        this.start_operator()?;
        Ok(this)
    }

    /// The same with the pool `default` (10.64.0.0/16, fd00:64::/112) and an agent that is ready.
    pub async fn ready(choice: Choice) -> Result<Self> {
        let mut this = Self::start(choice).await?;
        this.apply_pool("default", json!({"subnets": [{"ipv4": "10.64.0.0/16", "ipv6": "fd00:64::/112"}]})).await?;
        this.start_agent().await?;
        Ok(this)
    }

    /// What spoils single requests and watches of the agent; the node was started with [`Choice::api_proxy`].
    pub fn api(&self) -> Result<&ApiProxy> {
        self.api_proxy.as_ref().context("the node was started without an API proxy")
    }

    /// A path among the files of this node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The agent's `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    fn write_kubeconfig(&self) -> Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "agent",
            "clusters": [{"name": "agent", "cluster": {
                "server": format!("https://{}", self.proxy.address()),
                "certificate-authority": self.control_plane.certificates().file("ca.crt"),
            }}],
            "users": [{"name": "agent", "user": {"token": AGENT_USER}}],
            "contexts": [{"name": "agent", "context": {"cluster": "agent", "user": "agent"}}],
        });
        Ok(std::fs::write(self.path("agent.kubeconfig"), kubeconfig.to_string())?)
    }

    /// Starts the operator.
    pub fn start_operator(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.admin_kubeconfig()?;
        let mut arguments: Vec<String> =
            ["--namespace=bobbin-system", "--identity=operator-1", "--no-leader-election", "--status-interval=1s"]
                .map(str::to_owned)
                .to_vec();
        arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
        arguments.extend(self.choice.operator.iter().cloned());
        let program = self.path("bin/bobbin-operator");
        self.operator = Some(Running::start(&program, None, &self.path("operator.log"), arguments)?);
        Ok(())
    }

    /// Kills the operator.
    pub fn stop_operator(&mut self) {
        self.operator = None;
    }

    /// Starts the agent, and waits until STATUS says that it can serve.
    pub async fn start_agent(&mut self) -> Result<()> {
        self.start_agent_only()?;
        self.await_agent(PATIENCE).await
    }

    /// Starts the agent.
    pub fn start_agent_only(&mut self) -> Result<()> {
        self.agent = Some(self.another_agent("agent.log")?);
        Ok(())
    }

    /// Kills the agent; this one, which runs already, is the node's from now on.
    pub fn replace_agent(&mut self, agent: Running) {
        self.agent = Some(agent);
    }

    /// Starts an agent with the same flags beside the node's own; it writes its log to `log` among the files of this node.
    pub fn another_agent(&self, log: &str) -> Result<Running> {
        let mut arguments = vec![
            format!("--node-name={NODE}"),
            format!("--kubeconfig={}", self.path("agent.kubeconfig").display()),
            format!("--run-dir={}", self.run_dir().display()),
            format!("--boot-id-path={}", self.path("boot-id").display()),
            "--install".to_owned(),
            format!("--cni-bin-dir={}", self.path("cni-bin").display()),
            format!("--cni-conf-dir={}", self.path("cni-conf").display()),
            format!("--shim-path={}", self.product.shim().display()),
        ];
        let name = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
        let replaced: Vec<String> = self.agent_flags.iter().map(name).collect();
        arguments.extend(self.choice.agent.iter().cloned());
        arguments.retain(|flag| !replaced.contains(&name(flag)));
        arguments.extend(self.agent_flags.iter().cloned());
        let netns = self.namespace.path();
        Running::start(&self.path("bin/bobbin-agent"), Some(&netns), &self.path(log), arguments)
    }

    /// Waits until the agent itself (not the shim for it) answers STATUS with success.
    pub async fn await_agent(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            self.agent.as_mut().context("the agent was not started")?.must_be_running()?;
            // Not through the shim: it vouches for an agent that was ready once.
            let Err(says) = status::of_agent(&self.run_dir().join("agent.sock"), &self.plugin().conf) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                bail!(
                    "the agent was not ready within {} s: STATUS says {}; the end of its log:\n{}",
                    patience.as_secs(),
                    says,
                    self.agent_log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL for the agent.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Whether the agent runs; fails with the end of its log if it ended by itself.
    pub fn agent_must_run(&mut self) -> Result<()> {
        self.agent.as_mut().context("the agent was not started")?.must_be_running()
    }

    /// The agent's resident memory, in KiB.
    pub fn agent_memory(&self) -> Result<u64> {
        let pid = self.agent.as_ref().context("the agent was not started")?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number in VmRSS")?.parse()?)
    }

    /// The agent's process.
    pub fn agent_pid(&self) -> Result<Pid> {
        Ok(self.agent.as_ref().context("the agent was not started")?.pid())
    }

    /// The last lines that the agent wrote.
    pub fn agent_log_tail(&self) -> String {
        self.agent.as_ref().map_or_else(String::new, Running::log_tail)
    }

    /// All that agents of this node have written.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Flags of the next agents, in the place of those that the node was started with, by their names.
    pub fn set_agent_flags(&mut self, flags: &[&str]) {
        self.agent_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Bobbin, as the runtime of this node calls it.
    pub fn plugin(&self) -> Plugin {
        Plugin {
            namespace: self.namespace.clone(),
            executable: self.product.shim().to_owned(),
            path: self.path("cni-bin"),
            environment: vec![("BOBBIN_SOCKET".to_owned(), self.run_dir().join("agent.sock").display().to_string())],
            conf: json!({"cniVersion": "1.1.0", "name": "bobbin", "type": "bobbin"}),
        }
    }

    /// Executes the shim.
    pub fn call(&self, call: &Call) -> Result<Answer> {
        self.plugin().call(call)
    }

    /// A pod's namespace and container ID, of no pod that Kubernetes knows (it gets the pool `default`).
    pub fn pod(&self) -> Result<Pod> {
        Pod::make(&self.path("netns"))
    }

    /// ADD of a pod that must succeed; the result.
    pub fn add(&self, pod: &Pod) -> Result<Value> {
        let result = self.call(&pod.call("ADD"))?.ok();
        result.with_context(|| format!("ADD; the end of the agent's log:\n{}", self.agent_log_tail()))
    }

    /// DEL of a pod that must succeed.
    pub fn del(&self, pod: &Pod) -> Result<()> {
        let answer = self.call(&pod.call("DEL"))?;
        answer.ok().with_context(|| format!("DEL; the end of the agent's log:\n{}", self.agent_log_tail()))?;
        Ok(())
    }

    /// Runs cnitool with the configuration that the agent installed, or one in `conf_dir`.
    pub fn cnitool(&self, verb: &str, netns: &Path, conf_dir: Option<&Path>) -> Result<Answer> {
        let tool = self.programs.path("cnitool")?;
        let conf_dir = conf_dir.map_or_else(|| self.path("cni-conf"), Path::to_owned);
        let mut command = self.namespace.command(tool);
        command.args([verb, "bobbin"]).arg(netns).env("NETCONFPATH", conf_dir).env("CNI_PATH", self.path("cni-bin"));
        command.env("BOBBIN_SOCKET", self.run_dir().join("agent.sock"));
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

/// Gives the node an uplink to the fabric, and the fabric routes to the pods.
fn wire(node: &Namespace, fabric: &Namespace) -> Result<()> {
    node.ip(&format!("link add uplink mtu 1500 type veth peer name node netns {}", fabric.path().display()))?;
    node.ip(&format!(
        "addr add {NODE_IPV4}/24 dev uplink\naddr add {NODE_IPV6}/64 dev uplink nodad\nlink set uplink up\n"
    ))?;
    fabric.ip(&format!(
        "addr add {FABRIC_IPV4}/24 dev node\naddr add {FABRIC_IPV6}/64 dev node nodad\nlink set node up\n\
         route add 10.64.0.0/12 via {NODE_IPV4}\nroute add fd00:64::/48 via {NODE_IPV6}\n"
    ))?;
    node.ip(&format!("route add default via {FABRIC_IPV4}\nroute add default via {FABRIC_IPV6} dev uplink\n"))
}
