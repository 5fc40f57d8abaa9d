//! The network configuration on stdin. It has only the fields of the CNI specification, because Bobbin's settings are flags
//! of the agent.

use crate::{AddResult, CniError, Verb, Version, code};
use serde_json::{Map, Value};

/// The configuration of one plugin, which the container runtime takes from the conflist.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// `cniVersion`: the version of the CNI specification that the configuration uses.
    pub cni_version: Version,
    /// `name`: the name of the network.
    pub name: String,
    /// `type`: the name of the plugin's executable.
    pub kind: String,
    /// `prevResult`: for CHECK and DEL the result of ADD; for ADD the result of the previous plugin in the chain.
    pub prev_result: Option<AddResult>,
    /// `runtimeConfig`: values for the capabilities that the configuration declares.
    pub runtime_config: Map<String, Value>,
    valid_attachments: Option<Vec<ValidAttachment>>,
}

/// An attachment that GC must keep: an entry of `cni.dev/valid-attachments`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValidAttachment {
    /// The container ID, from `containerID`.
    pub container_id: String,
    /// The interface name, from `ifname`.
    pub if_name: String,
}

impl NetConf {
    /// Parses the network configuration on stdin for a call with this verb.
    ///
    /// # Errors
    /// Fails with code 6 if stdin is not JSON, and with code 7 if stdin is not a valid network configuration. Fails with code
    /// 1 if Bobbin does not support the version, or if the version does not have the verb.
    pub fn parse(stdin: &[u8], verb: Verb) -> Result<NetConf, CniError> {
        if stdin.iter().all(u8::is_ascii_whitespace) {
            return Err(CniError::new(
                code::DECODING_FAILURE,
                format!(
                    "{verb} got no network configuration on stdin: the container runtime must write the configuration to stdin"
                ),
            ));
        }
        let value: Value = serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(
                code::DECODING_FAILURE,
                format!(
                    "the network configuration on stdin is not JSON ({error}): correct the conflist in /etc/cni/net.d"
                ),
            )
        })?;
        let Value::Object(conf) = value else {
            return Err(invalid(
                "the network configuration on stdin must be a JSON object: correct the conflist".to_owned(),
            ));
        };
        let cni_version = read_version(&conf, verb)?;
        let name = text(&conf, "name")?.ok_or_else(|| {
            invalid("the network configuration on stdin has no \"name\": name the network in the conflist".to_owned())
        })?;
        Ok(NetConf {
            cni_version,
            name: name.to_owned(),
            kind: text(&conf, "type")?.unwrap_or_default().to_owned(),
            prev_result: match conf.get("prevResult") {
                None | Some(Value::Null) => None,
                // A DEL does not need `prevResult`, because the agent's checkpoint has the attachment's addresses. So
                // an unreadable `prevResult` must not make the DEL fail.
                Some(result) if verb == Verb::Del => AddResult::from_json(result).ok(),
                Some(result) => Some(
                    AddResult::from_json(result)
                        .map_err(|why| invalid(format!("\"prevResult\" on stdin is not a CNI result: {why}")))?,
                ),
            },
            runtime_config: match conf.get("runtimeConfig") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(filled)) => filled.clone(),
                Some(_) => return Err(invalid("\"runtimeConfig\" on stdin must be a JSON object".to_owned())),
            },
            valid_attachments: read_attachments(&conf)?,
        })
    }

    /// The attachments that GC must keep.
    ///
    /// # Errors
    /// Fails with code 7 if the list is missing. An empty list is valid, and means that GC may remove every attachment.
    pub fn valid_attachments(&self) -> Result<&[ValidAttachment], CniError> {
        self.valid_attachments.as_deref().ok_or_else(|| {
            invalid("GC needs \"cni.dev/valid-attachments\" in the network configuration: without this list, Bobbin deletes nothing".to_owned())
        })
    }

    /// The `cniVersion` for an error answer: the version in stdin, or the newest version if stdin contains no version.
    pub fn version_text(stdin: &[u8]) -> String {
        serde_json::from_slice::<Value>(stdin)
            .ok()
            .and_then(|conf| conf.get("cniVersion")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| Version::LATEST.text().to_owned())
    }
}

fn read_version(conf: &Map<String, Value>, verb: Verb) -> Result<Version, CniError> {
    let refuse = |msg| Err(CniError::new(code::INCOMPATIBLE_VERSION, msg));
    let Some(asked) = text(conf, "cniVersion")? else {
        return refuse(format!(
            "the network configuration on stdin has no \"cniVersion\"; Bobbin supports {}: set one of these versions in the conflist",
            Version::NAMED
        ));
    };
    match Version::parse(asked) {
        None => refuse(format!(
            "CNI version {asked:?} is not supported; Bobbin supports {}: set one of these versions as \"cniVersion\" in the conflist",
            Version::NAMED
        )),
        Some(version) if !version.allows(verb) => refuse(format!(
            "CNI version {version} has no {verb}: set \"cniVersion\" in the conflist to {} or newer",
            if verb == Verb::Check { "0.4.0" } else { "1.1.0" }
        )),
        Some(version) => Ok(version),
    }
}

fn read_attachments(conf: &Map<String, Value>) -> Result<Option<Vec<ValidAttachment>>, CniError> {
    let list = match conf.get("cni.dev/valid-attachments") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(invalid("\"cni.dev/valid-attachments\" on stdin must be a JSON list".to_owned())),
    };
    list.iter()
        .map(|entry| {
            let of = |name| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
            match (of("containerID"), of("ifname")) {
                (Some(container_id), Some(if_name)) => Ok(ValidAttachment { container_id, if_name }),
                _ => Err(invalid(format!("\"cni.dev/valid-attachments\" has the entry {entry}, which lacks \"containerID\" or \"ifname\", so Bobbin deletes nothing"))),
            }
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn text<'a>(conf: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, CniError> {
    match conf.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("{name:?} on stdin must be a string, but is {other}"))),
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_CONFIG, msg)
}

#[cfg(test)]
mod tests;
