//! The numbers and names by which the node's network tells ours from others'. Set once, from the agent's flags.

use std::path::PathBuf;

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
    /// How names of host links begin: at most three characters.
    pub veth_prefix: String,
    /// Name of the nftables table, in family inet.
    pub nft_table: String,
    /// MTU of the pods' links; `None`: the uplink's.
    pub mtu: Option<u32>,
    /// Where `/proc/sys/net` can be written.
    pub sysctl_root: PathBuf,
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
