//! One node without a kubelet: API server, operator and agent are real processes. Tests execute the plugin as
//! containerd does, and a pod is a network namespace without a process.
//!
//! The agent reaches the API server through a [`TcpProxy`] that can cause network faults.

mod calls;
mod echo;
mod invariants;
mod kernel_state;
mod objects;
mod options;
mod plugin;
mod processes;
mod reference;
mod sandbox;
mod service_accounts;
pub(crate) mod status;
mod syscall_faults;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

pub use echo::EchoServer;
pub use kernel_state::{Attachment, ip_json};
pub use options::{SingleNodeOptions, own_mounts, own_network, suite};
pub use plugin::{Answer, Call, CniError, Plugin};
pub use sandbox::{NetnsMount, Sandbox, random_container_id};
pub use service_accounts::CHART_NAMESPACE;
pub use syscall_faults::{InjectedSyscall, SyscallFaults};

use crate::api_proxy::ApiProxy;
use crate::control_plane::{ControlPlane, ControlPlaneOptions, Process, ScratchDir};
use crate::network::{Namespace, TcpProxy};
use xtask::artifacts::Artifacts;
use xtask::programs::Programs;

/// The name of the Node object.
pub const NODE: &str = "n1";
/// The agent's user at the API server. In the audit log, the agent's calls have this user.
pub const AGENT_USER: &str = "bobbin-agent";
/// The operator's user at the API server after [`SingleNode::start_operator_behind_proxy`]. By default, the operator uses
/// the administrator's credentials.
pub const OPERATOR_USER: &str = "bobbin-operator";
/// The node's IPv4 address.
pub const NODE_IPV4: &str = "10.100.0.1";
/// The node's IPv6 address.
pub const NODE_IPV6: &str = "fd00:100::1";
/// The IPv4 address of a machine behind the node's uplink.
pub const FABRIC_IPV4: &str = "10.100.0.254";
/// The IPv6 address of the machine that has [`FABRIC_IPV4`].
pub const FABRIC_IPV6: &str = "fd00:100::fe";
/// How long the agent or the operator may take for work that is not urgent.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// After a fault, blocks, assignments and attachments must be right again within this time.
pub const CONVERGENCE_TIMEOUT: Duration = Duration::from_mins(1);

/// The node, its control plane and its programs. Dropping this value ends every process and namespace.
pub struct SingleNode {
    agent: Option<Process>,
    operator: Option<Process>,
    /// The proxy between the agent and the API server.
    pub proxy: TcpProxy,
    api_proxy: Option<ApiProxy>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The administrator's client, which connects to the API server without the proxy.
    pub client: kube::Client,
    /// The node's network namespace.
    pub namespace: Namespace,
    /// The network namespace behind the node's uplink.
    pub fabric: Namespace,
    /// Bobbin's executables.
    pub artifacts: Artifacts,
    /// The paths of cnitool and of the reference plugins.
    pub programs: Programs,
    _run: RunDirectory,
    scratch: ScratchDir,
    options: SingleNodeOptions,
    agent_flags: Vec<String>,
}

/// The directory for the agent's `--run-dir`. It is on a tmpfs, like `/run`.
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    pub(crate) fn make(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path)?;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("a tmpfs can't be mounted at {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // If unmounting fails, the kernel removes the mount later, when this process's mount namespace ends.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl SingleNode {
    /// Starts everything except the agent. Creates no pool.
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
        for user in [AGENT_USER, OPERATOR_USER] {
            head.add_token(user, user, &["system:masters"]);
        }
        // Let the API server accept pods whose ServiceAccount does not exist. No controller manager is running here, so
        // no namespace has the ServiceAccount `default`.
        head.apiserver_arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
        let control_plane = ControlPlane::start(head).await?;
        let client = control_plane.client().await?;

        let (namespace, fabric) = (Namespace::make()?, Namespace::make()?);
        wire(&namespace, &fabric)?;
        let api_proxy = if options.api_proxy { Some(ApiProxy::start(&control_plane).await?) } else { None };
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
        this.write_kubeconfig(AGENT_USER)?;
        this.install_crds().await?;
        this.make_node().await?;
        this.start_operator()?;
        Ok(this)
    }

    /// Starts the node, creates the pool `default` (10.64.0.0/16, fd00:64::/112), and waits until the agent is ready.
    pub async fn ready(options: SingleNodeOptions) -> Result<Self> {
        let mut this = Self::start(options).await?;
        this.apply_pool("default", json!({"subnets": [{"ipv4": "10.64.0.0/16", "ipv6": "fd00:64::/112"}]})).await?;
        this.await_free_blocks("default").await?;
        this.start_agent().await?;
        Ok(this)
    }

    /// The proxy that can break single requests and watches of the agent. Fails if the test started the node without
    /// [`SingleNodeOptions::api_proxy`].
    pub fn api(&self) -> Result<&ApiProxy> {
        self.api_proxy.as_ref().context("the node has no API proxy: set SingleNodeOptions::api_proxy")
    }

    /// The path of the file `name` in the directory for this node's files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The agent's `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    fn write_kubeconfig(&self, token: &str) -> Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "agent",
            "clusters": [{"name": "agent", "cluster": {
                "server": format!("https://{}", self.proxy.address()),
                "certificate-authority": self.control_plane.certificates().file("ca.crt"),
            }}],
            "users": [{"name": "agent", "user": {"token": token}}],
            "contexts": [{"name": "agent", "context": {"cluster": "agent", "user": "agent"}}],
        });
        Ok(std::fs::write(self.path("agent.kubeconfig"), kubeconfig.to_string())?)
    }
}

/// Connects the node to the fabric by an uplink. In the fabric's namespace, adds routes that lead to the pods.
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
