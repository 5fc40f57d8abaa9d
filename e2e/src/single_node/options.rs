//! The options of a single node, and the suite of tests that share one node.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use xtask::artifacts::Artifacts;

use super::SingleNode;
use crate::network::{Namespace, NetworkFault};
use crate::suite::{Fixture, Suite};

/// The options of a single node.
#[derive(Clone, Debug, Default)]
pub struct SingleNodeOptions {
    /// Whether etcd syncs each write to the disk. Only benchmarks need this.
    pub fsync: bool,
    /// Bobbin's executables; `None` means [`Artifacts::find`].
    pub artifacts: Option<Artifacts>,
    /// Additional flags of the agent.
    pub agent: Vec<String>,
    /// Additional flags of the operator.
    pub operator: Vec<String>,
    /// Whether the operator takes part in an election of leaders, as in a cluster.
    pub leader_election: bool,
    /// Whether to put an [`ApiProxy`](crate::api_proxy::ApiProxy) behind the [`TcpProxy`](crate::network::TcpProxy), to
    /// break single requests and watches (see [`SingleNode::api`]).
    pub api_proxy: bool,
}

impl SingleNodeOptions {
    /// The default options, with these additional flags of the agent.
    pub fn with_agent_flags<const N: usize>(flags: [&str; N]) -> Self {
        Self { agent: flags.map(str::to_owned).to_vec(), ..Self::default() }
    }
}

/// Creates the suite of tests that share one node. Call this function before the process starts a second thread.
pub fn suite(options: SingleNodeOptions) -> Result<Suite<SingleNode>> {
    own_mounts()?;
    Suite::new(move || SingleNode::ready(options.clone()))
}

impl Fixture for SingleNode {
    fn before_test(&mut self) -> Result<()> {
        self.proxy.set(NetworkFault::None);
        Ok(())
    }
}

/// Moves this process to a new network namespace, and adds `address` to the namespace's loopback link. The API server's
/// pod proxy refuses the loopback address 127.0.0.1, but can reach a pod at `address`. Call this function before the
/// process starts a second thread.
pub fn own_network(address: &str) -> Result<()> {
    let namespace = Namespace::make()?;
    namespace.ip(&format!("addr add {address}/32 dev lo"))?;
    let file = std::fs::File::open(namespace.path())?;
    setns(file, CloneFlags::CLONE_NEWNET).context("this process can't enter its network namespace: run it as root")
}

/// Moves this process to a new mount namespace. When the process ends, the kernel removes its mounts of network
/// namespaces and of cnitool's cache. Call this function before the process starts a second thread.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("this process can't create a mount namespace: run it as root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("the mounts of this process can't be made private")?;
    std::fs::create_dir_all("/var/lib/cni").context("/var/lib/cni can't be created")?;
    mount(Some("tmpfs"), "/var/lib/cni", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("a tmpfs can't be mounted at /var/lib/cni")
}
