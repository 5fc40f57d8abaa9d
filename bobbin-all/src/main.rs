//! One executable for the operator, the agent, the agent's health probe, the check before an uninstall and the kubectl
//! plugin with its completion. If the executable is called `bobbin-operator`, `bobbin-agent`, `kubectl-bobbin` or
//! `kubectl_complete-bobbin`, that name selects the program. Under any other name, the first argument selects the program.

mod probe;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage:
  bobbin-all operator [OPTIONS]       Runs the operator.
  bobbin-all agent [OPTIONS]          Runs the node agent.
  bobbin-all kubectl [OPTIONS]        Runs a command of `kubectl bobbin`.
  bobbin-all probe <socket> <path>    Asks a running agent for its health.
  bobbin-all --version                Prints the version.

`bobbin-all operator --help` and `bobbin-all agent --help` list the options.";

enum Program {
    Operator,
    Agent,
    Probe,
    UninstallCheck,
    Kubectl,
    KubectlComplete,
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
        "kubectl-bobbin" => Program::Kubectl,
        "kubectl_complete-bobbin" => Program::KubectlComplete,
        _ => {
            let named = if args.len() > 1 { args.remove(1) } else { OsString::new() };
            match named.to_str() {
                Some("operator") => Program::Operator,
                Some("agent") => Program::Agent,
                Some("kubectl") => Program::Kubectl,
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
        Program::Kubectl => block_on(bobbin_cli::run(args)).unwrap_or_else(|code| code),
        Program::KubectlComplete => block_on(bobbin_cli::complete(args)).unwrap_or_else(|code| code),
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
                "bobbin-all: \"{}\" is not a program of Bobbin: the first argument must name a program.\n{USAGE}",
                named.display()
            );
            ExitCode::from(2)
        }
    }
}

fn run(program: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    match block_on(program) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("bobbin: {error:#}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

/// Runs a program until it ends. Fails with an exit code if the program's threads can't start.
fn block_on<T>(program: impl Future<Output = T>) -> Result<T, ExitCode> {
    // Two threads are enough, because the programs wait most of the time.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
            eprintln!("bobbin-all: can't start the threads of the program: {error}");
            ExitCode::FAILURE
        })?;
    let ended = runtime.block_on(program);
    runtime.shutdown_background();
    Ok(ended)
}
