//! Handles one CNI call: reads the environment and stdin, and asks the agent. If the agent does not answer, the shim
//! answers with an error.

use crate::agent::{self, Agent, Unreachable};
use crate::{answer, status};
use bobbin_cni_wire::frame::{MAX_BODY, Response};
use bobbin_cni_wire::{Request, SOCKET, Verb, Version, code};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tests set this environment variable to use another socket. The shim expects the ready marker in the directory of the
/// socket.
const SOCKET_VARIABLE: &str = "BOBBIN_SOCKET";

/// Handles the CNI call for which the container runtime started this process.
pub fn run_call() -> Response {
    let Some(word) = std::env::var_os("CNI_COMMAND") else {
        return answer::error(
            b"",
            code::INVALID_ENVIRONMENT,
            &[
                "CNI_COMMAND is not set: bobbin is a CNI plugin, and a container runtime starts it with CNI_COMMAND in the environment",
            ],
        );
    };
    let mut stdin = Vec::new();
    // Read one byte more than the limit, so that the length shows whether stdin is too long.
    let read = std::io::stdin().lock().take(MAX_BODY as u64 + 1).read_to_end(&mut stdin);
    let Some(verb) = word.to_str().and_then(Verb::parse) else {
        return answer::error(
            &stdin,
            code::INVALID_ENVIRONMENT,
            &["CNI_COMMAND is \"", &word.to_string_lossy(), "\", but must be ADD, DEL, CHECK, GC, STATUS or VERSION"],
        );
    };
    if read.is_err() {
        return answer::error(&stdin, code::IO_FAILURE, &["bobbin could not read the network configuration on stdin"]);
    }
    if stdin.len() > MAX_BODY {
        return answer::error(
            &stdin,
            code::IO_FAILURE,
            &["the network configuration on stdin is longer than 4 MiB, so bobbin refuses the call"],
        );
    }
    if verb == Verb::Version {
        let asked = answer::version_asked(&stdin).and_then(Version::parse);
        return Response { exit: 0, stdout: Version::answer(asked).into_bytes() };
    }
    ask(verb, stdin)
}

fn ask(verb: Verb, stdin: Vec<u8>) -> Response {
    let netns = match open_netns(verb) {
        Ok(netns) => netns,
        Err(path) => {
            return answer::error(
                &stdin,
                code::CONTAINER_UNKNOWN,
                &[
                    verb.word(),
                    ": CNI_NETNS is \"",
                    &path,
                    "\", which bobbin can't open: does the container still exist?",
                ],
            );
        }
    };
    let request = Request { env: environment(), stdin };
    let Ok(frame) = request.encode() else {
        return answer::error(
            &request.stdin,
            code::INVALID_ENVIRONMENT,
            &[
                verb.word(),
                ": the CNI_* environment variables together are longer than 64 KiB, or one of them has an invalid name",
            ],
        );
    };
    let socket = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    match Agent::new(&socket, timeout_of(verb)).ask(&frame, netns.as_ref()) {
        Ok(response) => response,
        Err(why) if verb == Verb::Status => {
            status::without_agent(socket.parent().unwrap_or(Path::new("/")), &request.stdin, why)
        }
        Err(why) => unreached(verb, &socket, &request.stdin, why),
    }
}

/// The error for ADD, DEL, CHECK and GC if the agent does not answer. The message must never contain "not found".
/// If a DEL fails with an error that contains these words, containerd counts it as a success and never repeats the DEL.
fn unreached(verb: Verb, socket: &Path, stdin: &[u8], why: Unreachable) -> Response {
    let socket = socket.to_string_lossy();
    let parts: &[&str] = &[
        verb.word(),
        ": ",
        why.sentence(),
        " (",
        &socket,
        "): the kubelet or the container runtime retries; if the error persists, check whether the bobbin-agent pod of this node is running",
    ];
    answer::error(stdin, code::TRY_AGAIN_LATER, parts)
}

/// How long the shim waits for the agent's answer. The limit for ADD must exceed the agent's limit for ADD, which is
/// 30 s by default and 50 s at most. The kubelet's limit is even longer: several minutes. The shim must answer a STATUS
/// within 1 s.
fn timeout_of(verb: Verb) -> Duration {
    match verb {
        Verb::Status => agent::STATUS_TIMEOUT,
        Verb::Add | Verb::Gc => Duration::from_mins(1),
        Verb::Del | Verb::Check | Verb::Version => Duration::from_secs(30),
    }
}

/// Opens the network namespace of the call. If an ADD or a CHECK names a namespace that can't be opened, returns the
/// namespace's path as the error.
///
/// A DEL continues without a namespace, because the namespace may no longer exist, or `CNI_NETNS` may be empty.
fn open_netns(verb: Verb) -> Result<Option<OwnedFd>, String> {
    let path = match verb {
        Verb::Add | Verb::Check | Verb::Del => std::env::var_os("CNI_NETNS").filter(|path| !path.is_empty()),
        Verb::Gc | Verb::Status | Verb::Version => None,
    };
    // If an ADD or CHECK has no `CNI_NETNS`, the agent answers that the variable is missing.
    let Some(path) = path else { return Ok(None) };
    // The open must not block, even if the path is a pipe.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match open(Path::new(&path), flags, Mode::empty()) {
        Ok(netns) => Ok(Some(netns)),
        Err(_) if verb == Verb::Del => Ok(None),
        Err(_) => Err(path.to_string_lossy().into_owned()),
    }
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CNI_"))
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}
