//! The error object of the CNI specification ("Error"), as the agent answers it.

use serde::Serialize;

/// An error that the runtime prints: a code and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// A number of `crate::code`.
    pub code: u32,
    /// One sentence: what, where, why, what to do.
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
    /// An error with a code and a sentence.
    pub fn new(code: u32, msg: impl Into<String>) -> CniError {
        CniError { code, msg: msg.into() }
    }

    /// The object for stdout, in the `cniVersion` of the call (any text: an error answers unknown versions too).
    pub fn to_json(&self, cni_version: &str) -> Vec<u8> {
        let wire = Wire { cni_version, code: self.code, msg: &self.msg };
        serde_json::to_vec(&wire)
            .unwrap_or_else(|_| b"{\"code\":5,\"msg\":\"the error could not be written down\"}".to_vec())
    }
}
