//! Renders the CNI configuration and selects the CNI version of this configuration. Pure.

use std::ffi::OsStr;

use bobbin_cni_wire::Version;
use serde_json::{Value, json};

use super::install::{CONFLIST, PLUGIN};

/// The reason why the flag for the chained plugins or the flag for the CNI version is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainedError {
    /// The flag `--chained` is not a JSON list of objects.
    #[error(
        "--chained is not a JSON list of CNI plugin configurations: {0}. An example of a valid list is [{{\"type\":\"portmap\",\"capabilities\":{{\"portMappings\":true}}}}]"
    )]
    NoList(String),
    /// A chained plugin has no usable type.
    #[error(
        "chained plugin number {0} in --chained has no valid \"type\". Set \"type\" to the name of an executable in the CNI directory, without slashes"
    )]
    NoType(usize),
    /// The CNI version is not supported.
    #[error("Bobbin does not support CNI version {0:?} (--cni-version). Use one of {named}", named = Version::NAMED)]
    UnknownVersion(String),
}

/// Parses the value of `--chained`, the list of chained plugins.
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

/// The CNI versions in a plugin's answer to VERSION. Leaves out versions that Bobbin does not support.
pub(super) fn supported(answer: &[u8]) -> Vec<Version> {
    let parsed: Value = serde_json::from_slice(answer).unwrap_or_default();
    let listed = parsed.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(Value::as_str).filter_map(Version::parse).collect()
}

/// The highest CNI version that every plugin supports and that is not higher than `wanted`. If there is no such version, returns the oldest
/// CNI version that Bobbin supports.
pub(super) fn version_for(wanted: &str, plugins: &[Vec<Version>]) -> Result<Version, ChainedError> {
    let most = Version::parse(wanted).ok_or_else(|| ChainedError::UnknownVersion(wanted.to_owned()))?;
    let oldest = Version::ALL[0];
    let all = |version: &Version| plugins.iter().all(|known| known.contains(version));
    Ok(Version::ALL.into_iter().rev().filter(|version| *version <= most).find(all).unwrap_or(oldest))
}

/// Renders the content of the configuration file.
///
/// The runtime passes host ports only to plugins that declare the capability `portMappings`. If no chained plugin declares this capability,
/// Bobbin's own entry declares it. The agent then sees the host ports and warns that no plugin handles them.
pub(super) fn render(version: Version, chained: &[Value]) -> Vec<u8> {
    let declared = |plugin: &Value| plugin.pointer("/capabilities/portMappings") == Some(&Value::Bool(true));
    let own = if chained.iter().any(declared) {
        json!({ "type": PLUGIN })
    } else {
        json!({ "type": PLUGIN, "capabilities": { "portMappings": true } })
    };
    let mut plugins = vec![own];
    plugins.extend(chained.iter().cloned());
    let list = json!({ "cniVersion": version.text(), "name": "bobbin", "plugins": plugins });
    let mut bytes = serde_json::to_vec_pretty(&list).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Whether a configuration passes the runtime's calls on to Bobbin, as the configuration of a meta plugin such as Multus does. It passes
/// calls on if it has Bobbin as a delegate, or names Bobbin's network or file.
pub(super) fn delegates_to_bobbin(config: &Value) -> bool {
    let names_bobbin = |key: &str, text: &str| {
        matches!(key, "type" | "clusterNetwork") && text == PLUGIN
            || std::path::Path::new(text).file_name() == Some(OsStr::new(CONFLIST))
    };
    match config {
        Value::Object(fields) => fields.iter().any(|(key, value)| match value {
            Value::String(text) => names_bobbin(key, text),
            other => delegates_to_bobbin(other),
        }),
        Value::Array(values) => values.iter().any(delegates_to_bobbin),
        _ => false,
    }
}

/// Whether a runtime prefers a configuration file with this name to Bobbin's file.
pub(super) fn sorts_before_ours(name: &OsStr) -> bool {
    let kind = std::path::Path::new(name).extension().and_then(OsStr::to_str);
    matches!(kind, Some("conf" | "conflist" | "json")) && name < OsStr::new(CONFLIST)
}
