//! Parses and checks the environment of one CNI call. The shim sends this environment in a request to the agent.

use crate::{CniError, PodArgs, Request, Verb, code};

/// The maximum length of a container ID. The ID is part of file names and link aliases, and their lengths are limited.
pub const MAX_CONTAINER_ID: usize = 200;
/// The maximum length of an interface name in the kernel (IFNAMSIZ − 1).
pub const MAX_IF_NAME: usize = 15;

/// The environment of a CNI call. The fields that the verb needs are set; other fields may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The verb, from `CNI_COMMAND`.
    pub verb: Verb,
    /// The container ID, from `CNI_CONTAINERID`. Never empty for ADD, DEL and CHECK.
    pub container_id: String,
    /// The interface name, from `CNI_IFNAME`. Never empty for ADD, DEL and CHECK.
    pub if_name: String,
    /// The path of the network namespace, from `CNI_NETNS`. Always set for ADD and CHECK.
    pub netns: Option<String>,
    /// The pod of the call, from `CNI_ARGS`.
    pub pod: PodArgs,
}

impl Call {
    /// Parses and checks the environment of a request.
    ///
    /// # Errors
    /// Fails with code 4 if a variable that the verb needs is missing or malformed. The message names this variable.
    pub fn read(request: &Request) -> Result<Call, CniError> {
        let word = request.variable("CNI_COMMAND").unwrap_or_default();
        let verb = Verb::parse(word).ok_or_else(|| {
            refuse(format!("CNI_COMMAND is {word:?}, but must be ADD, DEL, CHECK, GC, STATUS or VERSION"))
        })?;
        let of = |name| request.variable(name).unwrap_or_default();
        let (container_id, if_name, netns) = (of("CNI_CONTAINERID"), of("CNI_IFNAME"), of("CNI_NETNS"));
        let attachment = matches!(verb, Verb::Add | Verb::Del | Verb::Check);
        if attachment {
            let needs_netns = verb != Verb::Del;
            let missing: Vec<&str> = [
                ("CNI_CONTAINERID", container_id, true),
                ("CNI_NETNS", netns, needs_netns),
                ("CNI_IFNAME", if_name, true),
            ]
            .into_iter()
            .filter(|(_, value, needed)| *needed && value.is_empty())
            .map(|(name, _, _)| name)
            .collect();
            if !missing.is_empty() {
                return Err(refuse(format!(
                    "{verb} needs environment variables that the container runtime did not set: {}",
                    missing.join(", ")
                )));
            }
            check_container_id(container_id)?;
            check_if_name(if_name)?;
        }
        Ok(Call {
            verb,
            container_id: container_id.to_owned(),
            if_name: if_name.to_owned(),
            netns: (!netns.is_empty()).then(|| netns.to_owned()),
            pod: if attachment { PodArgs::parse(of("CNI_ARGS"))? } else { PodArgs::default() },
        })
    }
}

/// Checks the container ID as the CNI specification demands: a letter or digit, then letters, digits, `_`, `.` and `-`.
fn check_container_id(id: &str) -> Result<(), CniError> {
    let well_formed = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !well_formed {
        return Err(refuse(format!(
            "CNI_CONTAINERID is {id:?}, but must start with a letter or digit and consist of letters, digits, '_', '.' and '-'"
        )));
    }
    if id.len() > MAX_CONTAINER_ID {
        return Err(refuse(format!(
            "CNI_CONTAINERID has {} characters, but Bobbin allows at most {MAX_CONTAINER_ID}",
            id.len()
        )));
    }
    Ok(())
}

/// Checks the interface name as the kernel does.
fn check_if_name(name: &str) -> Result<(), CniError> {
    let well_formed = name.len() <= MAX_IF_NAME
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if well_formed {
        return Ok(());
    }
    Err(refuse(format!(
        "CNI_IFNAME is {name:?}, but must have 1 to {MAX_IF_NAME} characters without '/', ':' and white space, and not be '.' or '..'"
    )))
}

fn refuse(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests;
