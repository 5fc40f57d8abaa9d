//! Names, aliases and MAC addresses of an attachment's links. The agent computes all of them from the attachment's key,
//! and the host link's name also from the configured prefix. So a restarted agent recognises the links of running pods.

use bobbin_ipam::{AttachmentKey, hash};

use crate::settings::Settings;

/// The prefix of aliases that Bobbin sets.
const ALIAS_PREFIX: &str = "bobbin:";
/// The maximum length of a link's name: `IFNAMSIZ` without the NUL.
const MAX_NAME_LEN: usize = 15;

/// The alias of the attachment's host link.
pub(crate) fn alias(key: &AttachmentKey) -> String {
    format!("{ALIAS_PREFIX}{key}")
}

/// Reads the attachment's key from the alias of a host link. Returns `None` if the alias does not have Bobbin's form.
pub(crate) fn key_of_alias(alias: &str) -> Option<AttachmentKey> {
    alias.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}

/// The alias of `lo` in a container's namespace.
pub(crate) fn container_alias(container_id: &str) -> String {
    format!("{ALIAS_PREFIX}{container_id}")
}

/// Reads the container ID from the alias of `lo`. Returns `None` if the alias does not have the form of
/// [`container_alias`].
pub(crate) fn container_of_alias(alias: &str) -> Option<&str> {
    let id = alias.strip_prefix(ALIAS_PREFIX)?;
    let first_fits = id.bytes().next()?.is_ascii_alphanumeric();
    let fits = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    (first_fits && fits).then_some(id)
}

/// The name of the attachment's host link: the prefix, then as many hexadecimal digits of a hash as fit.
pub(crate) fn host_name(settings: &Settings, key: &AttachmentKey) -> String {
    let prefix = &settings.veth_prefix;
    let digits = format!("{:016x}", salted_hash(&key.to_string(), 0));
    let fitting = MAX_NAME_LEN.saturating_sub(prefix.len());
    format!("{prefix}{}", &digits[digits.len().saturating_sub(fitting)..])
}

/// Whether a link name has the form that [`host_name`] produces.
pub(crate) fn is_host_name(settings: &Settings, name: &str) -> bool {
    let hash = name.strip_prefix(settings.veth_prefix.as_str());
    name.len() == MAX_NAME_LEN && hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The locally administered MAC addresses of the host link and of the container's interface. A repair on the node needs
/// the container interface's MAC address, but can't read it from the container's namespace. So the agent computes both
/// addresses.
pub(crate) fn macs(key: &AttachmentKey) -> ([u8; 6], [u8; 6]) {
    let text = key.to_string();
    let mac = |salt| {
        let [_, _, mut mac @ ..] = salted_hash(&text, salt).to_be_bytes();
        mac[0] = (mac[0] & 0xfc) | 0x02;
        mac
    };
    (mac(b'h'), mac(b'c'))
}

fn salted_hash(text: &str, salt: u8) -> u64 {
    hash::fnv1a(std::iter::once(salt).chain(text.bytes()))
}

#[cfg(test)]
mod tests;
