//! STATUS without an agent. An agent that restarts must not make its node NotReady (containerd takes any error for "network
//! not ready", and pods are evicted), so STATUS succeeds until the agent has been unreachable for a minute.
//!
//! The shim lives for one call only, so what it has seen lies in a file beside the socket: the time of the first failure.

use crate::agent::Unreachable;
use crate::answer;
use crate::clock::since_boot;
use bobbin_cni_wire::{Response, code};
use std::path::Path;
use std::time::Duration;

/// How long an agent that was ready once may be away before STATUS fails.
const GRACE: Duration = Duration::from_mins(1);
/// The file that the agent makes once it has been ready since boot.
const READY: &str = "ready";
/// The file with the time of the first call that did not reach the agent, in milliseconds since boot.
const UNREACHED: &str = "unreached";

/// The agent has answered: forget when it did not.
pub fn reached(markers: &Path) {
    // Nearly always there is none.
    let _ = std::fs::remove_file(markers.join(UNREACHED));
}

/// The agent has not answered a STATUS.
pub fn unreached(markers: &Path, stdin: &[u8], why: Unreachable) -> Response {
    let fail = |parts: &[&str]| answer::error(stdin, code::NOT_AVAILABLE, parts);
    if !markers.join(READY).exists() {
        return fail(&[
            "STATUS: ",
            why.sentence(),
            ", and has not been ready since this node booted: see the pod bobbin-agent of this node",
        ]);
    }
    let marker = markers.join(UNREACHED);
    let now = since_boot();
    let first = std::fs::read_to_string(&marker)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_millis)
        // A time that lies ahead is of an earlier boot.
        .filter(|first| *first <= now);
    match first {
        Some(first) if now.saturating_sub(first) >= GRACE => {
            fail(&["STATUS: ", why.sentence(), ", for more than 60 s: see the pod bobbin-agent of this node"])
        }
        Some(_) => Response::default(),
        None => {
            let text = (now.as_millis() as u64).to_string();
            match std::fs::write(&marker, text) {
                Ok(()) => Response::default(),
                // Without the marker the minute would never end.
                Err(_) => fail(&["STATUS: ", why.sentence(), ", and its directory under /run can't be written"]),
            }
        }
    }
}
