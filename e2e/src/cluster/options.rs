//! The options of a test cluster.

/// The network plugin that assigns addresses to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Pods have no network until the test installs Bobbin.
    Bobbin,
    /// The reference plugins `ptp` and `host-local`. With these plugins, a test verifies the test cluster itself.
    Reference,
    /// The nodes start with the reference plugins, which stay installed when the test installs Bobbin.
    ReferenceThenBobbin,
}

impl Network {
    /// Whether the nodes have the reference plugins from their first boot on.
    pub(super) fn has_reference(self) -> bool {
        self != Self::Bobbin
    }

    /// Whether the test may install Bobbin. If so, the nodes need Bobbin's image.
    pub(super) fn may_have_bobbin(self) -> bool {
        self != Self::Reference
    }
}

/// The options of the cluster that a test sets.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The number of nodes at the start. Their names are `n1`, `n2` and so on.
    pub nodes: usize,
    /// The network plugin that assigns addresses to pods.
    pub network: Network,
    /// Whether etcd waits until each write is on the disk. Only benchmarks need this.
    pub fsync: bool,
    /// Whether the API server writes the audit log.
    pub audit: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, network: Network::Bobbin, fsync: false, audit: true }
    }
}
