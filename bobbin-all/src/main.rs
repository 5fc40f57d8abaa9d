//! One executable for operator and agent: which of them it is, the name it is called by says, or else its first argument.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

enum Program {
    Operator,
    Agent,
}

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called =
        args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let program = match called {
        "bobbin-operator" => Some(Program::Operator),
        "bobbin-agent" => Some(Program::Agent),
        _ => {
            let named = if args.len() > 1 { args.remove(1) } else { OsString::new() };
            match named.to_str() {
                Some("operator") => Some(Program::Operator),
                Some("agent") => Some(Program::Agent),
                _ => None,
            }
        }
    };
    let Some(program) = program else {
        eprintln!("bobbin-all: say which program it is to be: bobbin-all operator … or bobbin-all agent …");
        return ExitCode::from(2);
    };
    // Two threads are plenty: both programs wait most of the time.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bobbin-all: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match program {
            Program::Operator => bobbin_operator::run(args).await,
            Program::Agent => bobbin_node_agent::run(args).await,
        }
    });
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bobbin: {error:#}");
            ExitCode::FAILURE
        }
    }
}
