//! What is asked of the network for one attachment, what it answers, and the names both sides of a veth get.

use std::net::{Ipv4Addr, Ipv6Addr};

use bobbin_ipam::hash::fnv1a;
use bobbin_ipam::{AttachmentKey, IpPair};

use crate::netns::NetnsRef;
use crate::settings::Settings;

/// How aliases of our host links begin; the attachment follows.
pub(crate) const ALIAS_PREFIX: &str = "bobbin:";

/// One attachment as it should be wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Whose link it is; the interface name is the name in the container.
    pub key: AttachmentKey,
    /// The pod's addresses.
    pub pair: IpPair,
    /// The node's own IPv4 address: source of what the node itself sends to the pod.
    pub node_ipv4: Option<Ipv4Addr>,
    /// The node's own IPv6 address, likewise.
    pub node_ipv6: Option<Ipv6Addr>,
}

/// One attachment as it was wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Name of the link on the node.
    pub host_if: String,
    /// Index of the link on the node.
    pub host_index: u32,
    /// MAC address of the link on the node.
    pub host_mac: [u8; 6],
    /// MAC address of the interface in the container.
    pub container_mac: [u8; 6],
    /// MTU of both, in bytes.
    pub mtu: u32,
    /// The container's network namespace; `None` if the kernel told no ID for it. Then the attachment counts as in use
    /// until its DEL.
    pub netns: Option<NetnsRef>,
}

/// One of our links as the node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenLink {
    /// Whose link it is, from its alias.
    pub key: AttachmentKey,
    /// Name of the link on the node.
    pub host_if: String,
    /// Index of the link on the node.
    pub host_index: u32,
    /// The addresses that the pod table has on it.
    pub pair: IpPair,
}

/// A hash of the text that is the same in every build, because names must survive an upgrade.
fn salted_hash(text: &str, salt: u8) -> u64 {
    fnv1a(std::iter::once(salt).chain(text.bytes()))
}

/// The alias of the attachment's host link.
pub(crate) fn alias(key: &AttachmentKey) -> String {
    format!("{ALIAS_PREFIX}{key}")
}

/// The attachment that an alias names.
pub(crate) fn key_of_alias(alias: &str) -> Option<AttachmentKey> {
    alias.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}

/// The alias of `lo` in a container's namespace.
pub(crate) fn container_alias(container_id: &str) -> String {
    format!("{ALIAS_PREFIX}{container_id}")
}

/// The container that the alias of a `lo` names. An alias that is not exactly ours names none: another program wrote it.
pub(crate) fn container_of_alias(alias: &str) -> Option<&str> {
    let id = alias.strip_prefix(ALIAS_PREFIX)?;
    let first_fits = id.bytes().next()?.is_ascii_alphanumeric();
    let fits = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    (first_fits && fits).then_some(id)
}

/// The longest name of a link: IFNAMSIZ without the NUL.
const NAME_LENGTH: usize = 15;

/// The name of the attachment's host link: the prefix, and as many hexadecimal digits of a hash as fit behind it.
pub(crate) fn host_name(settings: &Settings, key: &AttachmentKey) -> String {
    let prefix = &settings.veth_prefix;
    let digits = format!("{:016x}", salted_hash(&key.to_string(), 0));
    let fitting = NAME_LENGTH.saturating_sub(prefix.len());
    format!("{prefix}{}", &digits[digits.len().saturating_sub(fitting)..])
}

/// Whether a name is one that [`host_name`] makes.
pub(crate) fn is_host_name(settings: &Settings, name: &str) -> bool {
    let hash = name.strip_prefix(settings.veth_prefix.as_str());
    name.len() == NAME_LENGTH && hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The locally administered MAC addresses of the host's and the container's side. Fixed by the attachment, so that
/// the permanent neighbours can be repaired without looking into the container.
pub(crate) fn macs(key: &AttachmentKey) -> ([u8; 6], [u8; 6]) {
    let text = key.to_string();
    let mac = |salt| {
        let [_, _, mut mac @ ..] = salted_hash(&text, salt).to_be_bytes();
        mac[0] = (mac[0] & 0xfc) | 0x02;
        mac
    };
    (mac(b'h'), mac(b'c'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and MAC addresses of running pods must survive an upgrade, so these values may never change.
    #[test]
    fn names_and_macs_of_an_attachment_never_change() {
        let settings = Settings { veth_prefix: "bob".to_owned(), ..Settings::default() };
        let key = AttachmentKey::new("0123456789abcdef", "eth0");
        assert_eq!(host_name(&settings, &key), "bobd1abca9bf1b5");
        assert_eq!(macs(&key), ([122, 71, 204, 6, 99, 189], [110, 184, 238, 25, 102, 110]));
    }
}
