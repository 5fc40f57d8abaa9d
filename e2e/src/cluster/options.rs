//! The options of a cluster.

/// Who gives pods their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nobody, until Bobbin is installed.
    Bobbin,
    /// The reference plugins `ptp` and `host-local`: what Bobbin is measured against, and a check of the cluster itself.
    Reference,
}

/// What a test chooses.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes to begin with: `n1`, `n2` and so on.
    pub nodes: usize,
    /// Who gives pods their addresses.
    pub network: Network,
    /// Whether etcd waits for the disk. Only measurements need it.
    pub fsync: bool,
    /// Whether the API server counts calls.
    pub audit: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, network: Network::Bobbin, fsync: false, audit: true }
    }
}
