//! `bobbin-all probe <socket> <path>`: an exec probe that asks a running agent for its health.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Returns exit status 0 if the agent is healthy. Otherwise prints what is wrong with the agent.
pub fn run(args: &[OsString]) -> ExitCode {
    let [_, socket, path] = args else {
        eprintln!(
            "bobbin-all: probe needs a socket and a path, for example: bobbin-all probe /run/bobbin/health.sock /healthz"
        );
        return ExitCode::from(2);
    };
    match bobbin_observability::probe(Path::new(socket), &path.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
