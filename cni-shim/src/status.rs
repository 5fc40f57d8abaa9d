//! Answers a STATUS if the agent does not answer it.
//!
//! A STATUS error makes the node NotReady, and Kubernetes then evicts its pods. So the shim returns an error only
//! if the agent has never been ready since the node booted. Otherwise the shim reports success.

use crate::agent::Unreachable;
use crate::answer;
use bobbin_cni_wire::{READY_MARKER, Response, code};
use std::path::Path;

/// Builds the answer to a STATUS that the agent did not answer. The agent creates its ready marker in `directory`.
pub fn without_agent(directory: &Path, stdin: &[u8], why: Unreachable) -> Response {
    if directory.join(READY_MARKER).exists() {
        return Response::default();
    }
    let parts: &[&str] = &[
        "STATUS: ",
        why.sentence(),
        ", and has not been ready since this node booted: check the bobbin-agent pod of this node",
    ];
    answer::error(stdin, code::NOT_AVAILABLE, parts)
}
