//! The error object of the CNI specification (section "Error") with which the agent answers a failed call.

use serde::Serialize;

use crate::code::Code;

/// An error that the container runtime shows: a code and a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// The error code, one of `crate::code`.
    pub code: Code,
    /// The message: what happened, where, why, and what to do.
    pub msg: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
}

impl CniError {
    /// Creates an error from a code and a message.
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into() }
    }

    /// The error object as JSON. `cni_version` is the version in the call, even if Bobbin does not support that version.
    pub fn to_json(&self, cni_version: &str) -> Vec<u8> {
        let wire = Wire { cni_version, code: self.code.number, msg: &self.msg };
        serde_json::to_vec(&wire).unwrap_or_else(|_| {
            b"{\"code\":5,\"msg\":\"the Bobbin agent could not encode its error as JSON\"}".to_vec()
        })
    }
}
