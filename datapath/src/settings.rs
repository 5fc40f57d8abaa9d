//! The numbers and names that mark Bobbin's objects in the node's network. The agent reads these values from its flags.

use std::path::PathBuf;

use crate::netlink::KernelError;

/// The table numbers, protocol numbers, names and other values of Bobbin's objects. Administrators can change each
/// value, because another program on the node may use the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Routing table of the pods' routes.
    pub pod_table: u32,
    /// Routing table that routing daemons read. The table has one route for each block of this node and each address
    /// family.
    pub export_table: u32,
    /// Priority of the rule that looks up [`Settings::pod_table`].
    pub rule_priority: u32,
    /// Protocol number of Bobbin's routes and rules.
    pub protocol: u8,
    /// Protocol number of the routes to other nodes' blocks (`--routing=direct`).
    pub direct_protocol: u8,
    /// Link group of the pods' host links. The anti-spoofing filter checks packets from links of this group.
    pub link_group: u32,
    /// The prefix of host links' names: one to four lower-case letters.
    pub veth_prefix: String,
    /// Name of the nftables table, in family inet.
    pub nft_table: String,
    /// MTU of the pods' links; `None` means the uplink's MTU.
    pub mtu: Option<u32>,
    /// The path of a writable `/proc/sys/net`.
    pub sysctl_root: PathBuf,
}

/// The longest allowed prefix of link names. A longer prefix leaves too few characters for the hash that makes link
/// names unique on a node.
const MAX_PREFIX_LEN: usize = 4;

impl Settings {
    /// Checks the prefix of link names.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        let prefix = &self.veth_prefix;
        let fits = (1..=MAX_PREFIX_LEN).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_lowercase());
        if fits {
            return Ok(());
        }
        Err(KernelError::InvalidSetting(format!(
            "{prefix:?} can't be the prefix of link names: set --veth-prefix to one to four lower-case letters"
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
