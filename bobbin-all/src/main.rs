//! One executable for the operator, the agent and the agent's health probe. If the executable is called `bobbin-operator` or
//! `bobbin-agent`, that name selects the program. Under any other name, the first argument does.

mod probe;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

enum Program {
    Operator,
    Agent,
    Probe,
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
                Some("probe") => Some(Program::Probe),
                _ => None,
            }
        }
    };
    match program {
        Some(Program::Operator) => run(bobbin_operator::run(args)),
        Some(Program::Agent) => run(bobbin_node_agent::run(args)),
        Some(Program::Probe) => probe::run(&args),
        None => {
            eprintln!(
                "bobbin-all: the first argument must name the program: bobbin-all operator …, bobbin-all agent … or bobbin-all probe …"
            );
            ExitCode::from(2)
        }
    }
}

fn run(program: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    // Two threads are enough, because operator and agent wait most of the time.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bobbin-all: can't start the threads of the program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(program);
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bobbin: {error:#}");
            ExitCode::FAILURE
        }
    }
}
