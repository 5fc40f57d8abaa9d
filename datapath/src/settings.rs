//! The numbers and names by which the node's network tells ours from others'. Set once, from the agent's flags.

use std::path::PathBuf;

use crate::socket::KernelError;

/// Tables, priorities, protocol numbers and names (design: "The node's network"). All are settings because another
/// program on the node may already use one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Routing table of the pods' routes.
    pub pod_table: u32,
    /// Routing table that routing daemons import: one route for each block of this node.
    pub export_table: u32,
    /// Priority of the rule that looks up [`Settings::pod_table`].
    pub rule_priority: u32,
    /// Protocol number of our routes and rules.
    pub protocol: u8,
    /// Protocol number of the routes to other nodes' blocks (`--routing=direct`).
    pub direct_protocol: u8,
    /// Link group of the pods' host links; the spoof filter matches it.
    pub link_group: u32,
    /// How names of host links begin: one to four lower-case letters.
    pub veth_prefix: String,
    /// Name of the nftables table, in family inet.
    pub nft_table: String,
    /// MTU of the pods' links; `None`: the uplink's.
    pub mtu: Option<u32>,
    /// Where `/proc/sys/net` can be written.
    pub sysctl_root: PathBuf,
}

/// The most characters of a prefix: with the hash behind it a name stays unique on a node.
const LONGEST_PREFIX: usize = 4;

impl Settings {
    /// Whether links can be named by these settings.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        let prefix = &self.veth_prefix;
        let fits = (1..=LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_lowercase());
        if fits {
            return Ok(());
        }
        Err(KernelError::Setting(format!(
            "names of links can't begin with {prefix:?}: set --veth-prefix to one to four lower-case letters"
        )))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pod_table: 116,
            export_table: 119,
            rule_priority: 2000,
            protocol: 30,
            direct_protocol: 31,
            link_group: 116,
            veth_prefix: "bob".to_owned(),
            nft_table: "bobbin".to_owned(),
            mtu: None,
            sysctl_root: PathBuf::from("/proc/sys/net"),
        }
    }
}
