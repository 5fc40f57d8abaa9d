//! One executable for the operator, the agent, the agent's health probe and the check before an uninstall. If the
//! executable is called `bobbin-operator` or `bobbin-agent`, that name selects the program. Under any other name, the
//! first argument selects the program.

mod probe;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage:
  bobbin-all operator [OPTIONS]       The operator.
  bobbin-all agent [OPTIONS]          The node agent.
  bobbin-all probe <socket> <path>    Asks a running agent for its health.
  bobbin-all --version                The version.

`bobbin-all operator --help` and `bobbin-all agent --help` list the options.";

enum Program {
    Operator,
    Agent,
    Probe,
    UninstallCheck,
    Help,
    Version,
    Unknown(OsString),
}

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called =
        args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let program = match called {
        "bobbin-operator" => Program::Operator,
        "bobbin-agent" => Program::Agent,
        _ => {
            let named = if args.len() > 1 { args.remove(1) } else { OsString::new() };
            match named.to_str() {
                Some("operator") => Program::Operator,
                Some("agent") => Program::Agent,
                Some("probe") => Program::Probe,
                Some("uninstall-check") => Program::UninstallCheck,
                Some("--help" | "-h" | "help") => Program::Help,
                Some("--version" | "-V") => Program::Version,
                _ => Program::Unknown(named),
            }
        }
    };
    match program {
        Program::Operator => run(bobbin_operator::run(args)),
        Program::Agent => run(bobbin_node_agent::run(args)),
        Program::Probe => probe::run(&args),
        Program::UninstallCheck => run(bobbin_operator::uninstall_check::run(args)),
        Program::Help => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Program::Version => {
            println!("bobbin {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Program::Unknown(named) => {
            eprintln!(
                "bobbin-all: \"{}\" is not a program of Bobbin: the first argument must name one.\n{USAGE}",
                named.display()
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
