//! `kubectl bobbin`: shows pools, blocks and addresses, and drains pools, with the kubeconfig and the rights of the user.
//!
//! The exit code is 0 after success, 1 after a failure, and 2 if the arguments are wrong. It is 3 if the answer is no,
//! for example because the address is in no pool, or the pod has no address.

mod api;
mod args;
mod commands;
mod print;
mod show;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;

use api::connection::{self, Connection};
use args::{Cli, Command, NodeArgs, NodesCommand};
use commands::{check, complete, confirm_deletion, dashboard, drain};
use print::failure;
use print::output::Output;
use show::{explain, map, node, nodes, pools, who};

/// The answer to the question that a command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The command did what it should, or found what it was asked for.
    Yes,
    /// The command succeeded, but the answer is no.
    No,
}

/// Runs the command that the arguments name, and prints its result. The first argument is the name of the program.
pub async fn run(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::read(args).unwrap_or_else(|error| error.exit());
    if let Command::Completion { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "kubectl-bobbin", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if let Command::Node(NodeArgs { socket: Some(socket), watch, .. }) = &cli.command {
        let output = Output { format: cli.global.output };
        return ended(node::run(&node::Source::Socket(socket), *watch, output).await, None);
    }
    let connection = match connection::connect(&cli.global).await {
        Ok(connection) => connection,
        Err(error) => return failed(&error, None),
    };
    ended(execute(cli, &connection).await, Some(&connection.server))
}

/// The exit code of a command. Prints an error.
fn ended(result: anyhow::Result<Answer>, server: Option<&str>) -> ExitCode {
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(3),
        Err(error) => failed(&error, server),
    }
}

/// Prints what kubectl asks for when the user completes a command line: one candidate per line. The first argument is the name of
/// the program.
pub async fn complete(args: Vec<OsString>) -> ExitCode {
    complete::run(args).await;
    ExitCode::SUCCESS
}

fn failed(error: &anyhow::Error, server: Option<&str>) -> ExitCode {
    anstream::eprintln!("error: {}", failure::sentence(error, server));
    ExitCode::FAILURE
}

async fn execute(cli: Cli, connection: &Connection) -> anyhow::Result<Answer> {
    let output = Output { format: cli.global.output };
    let client = &connection.client;
    match cli.command {
        Command::Pools(args) => pools::run(client, &cli.global.bobbin_namespace, &args, output).await,
        Command::Nodes(args) => match args.command {
            None => nodes::run(client, &args.list, output).await,
            Some(NodesCommand::ConfirmDeletion(args)) => {
                confirm_deletion::run(client, &cli.global.bobbin_namespace, &args, output).await
            }
        },
        Command::Node(args) => {
            let (namespace, node) = (cli.global.bobbin_namespace.as_str(), args.node.as_deref().unwrap_or_default());
            node::run(&node::Source::Proxy { client, namespace, node }, args.watch, output).await
        }
        Command::Check { nodes } => check::run(client, &cli.global, &nodes, output).await,
        Command::Who { address } => who::run(client, address, output).await,
        Command::Explain { pod } => {
            let chosen = cli.global.namespace.as_deref();
            let namespace = chosen.unwrap_or(&connection.namespace);
            let query = explain::PodQuery { namespace, namespace_is_given: chosen.is_some(), name: &pod.name };
            explain::run(client, &cli.global.bobbin_namespace, &query, output).await
        }
        Command::Map { pool } => map::run(client, &pool, output).await,
        Command::Drain(args) => drain::run(client, &args).await,
        Command::Dashboard(args) => dashboard::run(connection, &cli.global.bobbin_namespace, &args, output).await,
        Command::Completion { .. } => Ok(Answer::Yes),
    }
}
