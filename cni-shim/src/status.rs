//! STATUS without an agent. Containerd takes any error for "network not ready" and pods are evicted, so an agent that is away must never
//! make its node NotReady: only a node whose agent has not been ready since boot is not.

use crate::agent::Unreachable;
use crate::answer;
use bobbin_cni_wire::{READY_MARKER, Response, code};
use std::path::Path;

/// The agent has not answered a STATUS; its marker would lie in `directory`.
pub fn without_agent(directory: &Path, stdin: &[u8], why: Unreachable) -> Response {
    if directory.join(READY_MARKER).exists() {
        return Response::default();
    }
    let parts: &[&str] = &[
        "STATUS: ",
        why.sentence(),
        ", and has not been ready since this node booted: see the pod bobbin-agent of this node",
    ];
    answer::error(stdin, code::NOT_AVAILABLE, parts)
}
