//! One node without kubelet. API server, operator and agent are real processes. The shim is executed as containerd does it, and
//! a pod is a network namespace without a process.
//!
//! The agent reaches the API server through a [`TcpProxy`] that causes network faults.

mod calls;
mod echo;
mod kernel_state;
mod objects;
mod options;
mod plugin;
mod processes;
mod reference;
mod sandbox;
mod status;
mod syscall_faults;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

pub use echo::EchoServer;
pub use kernel_state::{Attachment, ip_json};
pub use options::{SingleNodeOptions, own_mounts, suite};
pub use plugin::{Answer, Call, CniError, Plugin};
pub use sandbox::{NetnsMount, Sandbox, random_container_id};
pub use syscall_faults::{InjectedSyscall, SyscallFaults};

use crate::api_proxy::ApiProxy;
use crate::control_plane::{ControlPlane, ControlPlaneOptions, Process, ScratchDir};
use crate::network::{Namespace, TcpProxy};
use xtask::artifacts::Artifacts;
use xtask::programs::Programs;

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
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The node and all it needs. Dropped: every process ends and every namespace goes.
pub struct SingleNode {
    agent: Option<Process>,
    operator: Option<Process>,
    /// What the agent reaches the API server through.
    pub proxy: TcpProxy,
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
    pub artifacts: Artifacts,
    /// Where cnitool and the reference plugins are.
    pub programs: Programs,
    _run: RunDirectory,
    scratch: ScratchDir,
    options: SingleNodeOptions,
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

impl SingleNode {
    /// Starts everything but the agent; the operator runs, and there is no pool.
    pub async fn start(options: SingleNodeOptions) -> Result<Self> {
        let artifacts = match &options.artifacts {
            Some(artifacts) => artifacts.clone(),
            None => Artifacts::find()?,
        };
        let scratch = ScratchDir::make("bobbin-single-node-")?;
        let run = RunDirectory::make(scratch.path().join("run"))?;
        for name in ["bin", "cni-bin", "cni-conf", "netns", "host-local"] {
            std::fs::create_dir(scratch.path().join(name))?;
        }
        for name in ["bobbin-agent", "bobbin-operator"] {
            std::os::unix::fs::symlink(artifacts.all(), scratch.path().join("bin").join(name))?;
        }
        std::fs::write(scratch.path().join("boot-id"), "11111111-1111-1111-1111-111111111111\n")?;

        let mut head = ControlPlaneOptions { fsync: options.fsync, audit: true, ..ControlPlaneOptions::default() };
        head.add_token(AGENT_USER, AGENT_USER, &["system:masters"]);
        // There is no controller manager to make service accounts.
        head.apiserver_arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
        let control_plane = ControlPlane::start(head).await?;
        let client = control_plane.client().await?;

        let (namespace, fabric) = (Namespace::make()?, Namespace::make()?);
        wire(&namespace, &fabric)?;
        let api_proxy = if options.api_proxy { Some(ApiProxy::start(&control_plane, AGENT_USER).await?) } else { None };
        let target = match &api_proxy {
            Some(api_proxy) => api_proxy.address(),
            None => control_plane.url().trim_start_matches("https://").parse()?,
        };
        let proxy = TcpProxy::start(&namespace, target)?;
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
            artifacts,
            programs,
            _run: run,
            scratch,
            options,
            agent_flags: Vec::new(),
        };
        this.write_kubeconfig()?;
        this.install_crds().await?;
        this.make_node().await?;
        this.start_operator()?;
        Ok(this)
    }

    /// The same with the pool `default` (10.64.0.0/16, fd00:64::/112) and an agent that is ready.
    pub async fn ready(options: SingleNodeOptions) -> Result<Self> {
        let mut this = Self::start(options).await?;
        this.apply_pool("default", json!({"subnets": [{"ipv4": "10.64.0.0/16", "ipv6": "fd00:64::/112"}]})).await?;
        this.start_agent().await?;
        Ok(this)
    }

    /// The proxy that breaks single requests and watches of the agent. Fails unless the node was started with [`SingleNodeOptions::api_proxy`].
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
