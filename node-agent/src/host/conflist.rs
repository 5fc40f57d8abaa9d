//! The content of the CNI configuration, and which version it may name. Pure.

use std::ffi::OsStr;

use bobbin_cni_wire::Version;
use serde_json::{Value, json};

use super::install::{CONFLIST, PLUGIN};

/// The setting of chained plugins, or of the version, makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainedError {
    /// No JSON list of objects.
    #[error(
        "the chained plugins (--chained) are no JSON list of plugin configurations: {0}; write for example [{{\"type\":\"portmap\",\"capabilities\":{{\"portMappings\":true}}}}]"
    )]
    NoList(String),
    /// A plugin without a usable type.
    #[error(
        "chained plugin number {0} (--chained) has no \"type\" that names an executable of the CNI directory; give it one, without slashes"
    )]
    NoType(usize),
    /// The version is none of ours.
    #[error("CNI version {0:?} (--cni-version) is not one of {named}; use one of these", named = Version::NAMED)]
    UnknownVersion(String),
}

/// Reads the setting of chained plugins.
pub(super) fn chained(text: &str) -> Result<Vec<Value>, ChainedError> {
    let text = if text.trim().is_empty() { "[]" } else { text };
    let plugins: Vec<Value> = serde_json::from_str(text).map_err(|error| ChainedError::NoList(error.to_string()))?;
    for (place, plugin) in plugins.iter().enumerate() {
        let named = plugin.get("type").and_then(Value::as_str);
        if !named.is_some_and(|name| !name.is_empty() && !name.contains('/') && name != "." && name != "..") {
            return Err(ChainedError::NoType(place + 1));
        }
    }
    Ok(plugins)
}

/// The versions of an answer to VERSION that we know too.
pub(super) fn supported(answer: &[u8]) -> Vec<Version> {
    let parsed: Value = serde_json::from_slice(answer).unwrap_or_default();
    let listed = parsed.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(Value::as_str).filter_map(Version::parse).collect()
}

/// The highest version, the wanted one at most, that every plugin supports; a plugin that says nothing supports the oldest.
pub(super) fn version_for(wanted: &str, plugins: &[Vec<Version>]) -> Result<Version, ChainedError> {
    let most = Version::parse(wanted).ok_or_else(|| ChainedError::UnknownVersion(wanted.to_owned()))?;
    let oldest = Version::ALL[0];
    let all = |version: &Version| plugins.iter().all(|known| known.contains(version));
    Ok(Version::ALL.into_iter().rev().filter(|version| *version <= most).find(all).unwrap_or(oldest))
}

/// The file's bytes.
pub(super) fn render(version: Version, chained: &[Value]) -> Vec<u8> {
    let mut plugins = vec![json!({ "type": PLUGIN })];
    plugins.extend(chained.iter().cloned());
    let list = json!({ "cniVersion": version.text(), "name": "bobbin", "plugins": plugins });
    let mut bytes = serde_json::to_vec_pretty(&list).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Whether a runtime would take a file of that name before ours.
pub(super) fn sorts_before_ours(name: &OsStr) -> bool {
    let kind = std::path::Path::new(name).extension().and_then(OsStr::to_str);
    matches!(kind, Some("conf" | "conflist" | "json")) && name < OsStr::new(CONFLIST)
}
