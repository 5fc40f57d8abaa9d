//! `bobbin-all probe <socket> <path>`: asks a running agent for its health, for an exec probe.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Exits with 0 if the program is well; else prints what is wrong.
pub fn run(args: &[OsString]) -> ExitCode {
    let [_, socket, path] = args else {
        eprintln!("bobbin-all: name socket and path to probe: bobbin-all probe /run/bobbin/health.sock /healthz");
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
